// How ExpandoObjects of the same keys are made: from the second on without looking for each key, which takes .NET most of
// the time of a call. What C# compiles to fills them in the same way, by methods that are .NET's own.

using System;
using System.Collections.Generic;
using System.Dynamic;
using System.Reflection;

namespace Sandpost
{
    // Keys in the order in which they came.
    sealed class Shape
    {
        const int Most = 1024; // shapes that a thread knows; then it begins anew
        const int MostKeys = 64;
        const int LongestKey = 64;

        [ThreadStatic]
        static Shape none;

        [ThreadStatic]
        static int count;

        static readonly Func<ExpandoObject, object> ClassOf = Own<Func<ExpandoObject, object>>("get_Class");
        static readonly Action<ExpandoObject, object, object> Promote = Own<Action<ExpandoObject, object, object>>("PromoteClass");
        static readonly Action<ExpandoObject, object, int, object, string, bool, bool> Set =
            Own<Action<ExpandoObject, object, int, object, string, bool, bool>>("TrySetValue");
        // What stands at a key that is not there: only from that to something else is a key counted.
        static readonly object Nothing = Field("Uninitialized");
        // A .NET that has made them otherwise looks for each key.
        static readonly bool Quick = ClassOf != null && Promote != null && Set != null && Nothing != null;
        static readonly object Empty = Quick ? ClassOf(new ExpandoObject()) : null;

        readonly string[] keys;
        readonly string written; // the last key, as it stands in a text
        Shape recent; // the one that came last of those with another key
        Dictionary<string, Shape> others;
        object known;

        Shape(string[] keys, string written)
        {
            this.keys = keys;
            this.written = written;
        }

        public static Shape None
        {
            get { return none ?? (none = new Shape(new string[0], "")); }
        }

        static T Own<T>(string name)
        {
            var method = typeof(ExpandoObject).GetMethod(name, BindingFlags.Instance | BindingFlags.NonPublic);
            return method == null ? default(T) : (T)(object)Delegate.CreateDelegate(typeof(T), method, false);
        }

        static object Field(string name)
        {
            var field = typeof(ExpandoObject).GetField(name, BindingFlags.Static | BindingFlags.NonPublic);
            return field == null ? null : field.GetValue(null);
        }

        // The shape with the key at `at` of a text more, which then is behind it; null for one that is not worth it, or too much.
        public Shape With(string text, ref int at)
        {
            if (recent != null && string.CompareOrdinal(text, at, recent.written, 0, recent.written.Length) == 0)
            {
                at += recent.written.Length;
                return recent;
            }
            if (text[at] != 's' || keys.Length == MostKeys) return null;
            var colon = text.IndexOf(':', at);
            var length = int.Parse(text.Substring(at + 1, colon - at - 1));
            if (length > LongestKey) return null;
            var key = text.Substring(colon + 1, length);
            if (others == null) others = new Dictionary<string, Shape>();
            if (!others.TryGetValue(key, out recent))
            {
                if (count++ == Most)
                {
                    count = 0;
                    none = null;
                }
                var more = new string[keys.Length + 1];
                keys.CopyTo(more, 0);
                more[keys.Length] = key;
                others[key] = recent = new Shape(more, text.Substring(at, colon + 1 + length - at));
            }
            at = colon + 1 + length;
            return recent;
        }

        // An object whose values are those of the list from `from` on.
        public ExpandoObject Make(List<object> values, int from)
        {
            var made = new ExpandoObject();
            if (known == null)
            {
                IDictionary<string, object> map = made;
                for (var i = 0; i < keys.Length; i++) map[keys[i]] = values[from + i];
                if (Quick) known = ClassOf(made);
            }
            else if (keys.Length > 0)
            {
                Promote(made, Empty, known);
                for (var i = 0; i < keys.Length; i++)
                {
                    // .NET itself goes on by a key at a time, and marks no more than that as not there.
                    if (i > 0) Set(made, known, i, Nothing, keys[i], false, false);
                    Set(made, known, i, values[from + i], keys[i], false, false);
                }
            }
            return made;
        }
    }
}
