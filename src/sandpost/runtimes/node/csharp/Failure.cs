// An exception as JavaScript gets it.

using System;
using System.Collections.Generic;
using System.Reflection;

namespace Sandpost
{
    static class Failure
    {
        const int Inner = 10;

        // What Exported returns: { name, message, stack, properties, inner } as its value. `refused`: it says that a result cannot be
        // handed over.
        public static object Of(Exception error, bool refused = false)
        {
            return Tree.Of(Tree.Failed + (refused ? Tree.Refused : 0), Shown(Cause(error), Inner));
        }

        // Without what only says that something was called by way of something else.
        public static Exception Cause(Exception error)
        {
            for (var left = Inner; left > 0; left--)
            {
                var many = error as AggregateException;
                if (many != null && many.InnerExceptions.Count == 1) error = many.InnerExceptions[0];
                else if (error is TargetInvocationException && error.InnerException != null) error = error.InnerException;
                else break;
            }
            return error;
        }

        public static string Text(Exception error)
        {
            try
            {
                return error.ToString();
            }
            catch (Exception)
            {
                return error.GetType().FullName;
            }
        }

        static Dictionary<string, object> Shown(Exception error, int left)
        {
            var type = error.GetType();
            var properties = new Dictionary<string, object>();
            foreach (var member in Tree.MembersOf(type))
            {
                if (member.Name == "InnerException" || member.Name == "TargetSite") continue;
                try
                {
                    var value = member.Read(error);
                    Tree.Of(0, value);
                    properties[member.Name] = value;
                }
                catch (Exception)
                {
                    // It cannot be handed over: the rest says what happened.
                }
            }
            var shown = new Dictionary<string, object>
            {
                { "name", type.FullName }, { "message", MessageOf(error) }, { "stack", Text(error) }, { "properties", properties },
            };
            if (error.InnerException != null && left > 0) shown["inner"] = Shown(error.InnerException, left - 1);
            return shown;
        }

        static string MessageOf(Exception error)
        {
            try
            {
                return error.Message ?? "";
            }
            catch (Exception)
            {
                return "";
            }
        }
    }
}
