// What .NET hands to JavaScript: a text of JSON, and beside it what JSON has no form for (docs in carry.js).

using System;
using System.Collections;
using System.Collections.Generic;
using System.Globalization;
using System.Reflection;
using System.Text;
using System.Threading.Tasks;

namespace Sandpost
{
    sealed class Tree
    {
        const int Depth = 100;
        const char Mark = '\0';

        static readonly Dictionary<Type, Member[]> Known = new Dictionary<Type, Member[]>();

        readonly StringBuilder text = new StringBuilder();
        readonly List<object> above = new List<object>();
        List<object> carried;
        bool marked;

        // What the digit before the text says, of which more than one may be.
        public const int Marked = 1, Failed = 2, Refused = 4;

        // A text, or an array that begins with it if there is something beside it. Throws InvalidOperationException for what
        // cannot be handed over. `state`: Failed and Refused, as they are.
        public static object Of(int state, object value)
        {
            var tree = new Tree();
            tree.text.Append('0');
            tree.Write(value);
            tree.text[0] = (char)('0' + (tree.marked ? Marked : 0) + state);
            var text = tree.text.ToString();
            if (tree.carried == null) return text;
            tree.carried[0] = text;
            return tree.carried.ToArray();
        }

        void Write(object value)
        {
            if (value == null) text.Append("null");
            else if (value is string) WriteText((string)value);
            else if (value is bool) text.Append((bool)value ? "true" : "false");
            else if (value is int || value is short || value is long) text.Append(((IFormattable)value).ToString(null, CultureInfo.InvariantCulture));
            else if (value is double) WriteNumber((double)value);
            else if (value is float) WriteNumber((float)value);
            else if (value is DateTime || value is byte[]) Aside(value);
            else if (value.GetType().IsPrimitive || value is decimal) WriteText(Convert.ToString(value, CultureInfo.InvariantCulture));
            else if (value is Enum || value is Guid || value is Uri || value is TimeSpan) WriteText(value.ToString());
            else if (value is DateTimeOffset) WriteText(((DateTimeOffset)value).ToString("o"));
            else if (value is Func<object, Task<object>>) Aside(new Func<object, Task<object>>(new Exported((Func<object, Task<object>>)value).Call));
            else if (value is Delegate || value is Pointer)
            {
                throw new InvalidOperationException(
                    "A " + value.GetType() + " cannot be handed to JavaScript: of functions it takes Func<object, Task<object>>");
            }
            else if (value is MemberInfo || value is Assembly || value is Module || value is ParameterInfo) text.Append("{}");
            else
            {
                Enter(value);
                WriteMany(value);
                above.RemoveAt(above.Count - 1);
            }
        }

        void WriteNumber(double value)
        {
            if (double.IsNaN(value) || double.IsInfinity(value)) Aside(value);
            else text.Append(value.ToString("R", CultureInfo.InvariantCulture));
        }

        void Aside(object value)
        {
            if (carried == null) carried = new List<object> { null };
            text.Append("\"\\u0000").Append(carried.Count).Append('"');
            carried.Add(value);
            marked = true;
        }

        void WriteText(string value)
        {
            text.Append('"');
            if (value.Length > 0 && value[0] == Mark)
            {
                text.Append("\\u0000");
                marked = true;
            }
            WriteEscaped(value);
            text.Append('"');
        }

        void WriteEscaped(string value)
        {
            var from = 0;
            for (var at = 0; at < value.Length; at++)
            {
                var one = value[at];
                if (one >= ' ' && one != '"' && one != '\\') continue;
                text.Append(value, from, at - from);
                from = at + 1;
                if (one < ' ') text.Append("\\u").Append(((int)one).ToString("x4"));
                else text.Append('\\').Append(one);
            }
            text.Append(value, from, value.Length - from);
        }

        void Enter(object value)
        {
            if (above.Count == Depth)
            {
                throw new InvalidOperationException("What is handed to JavaScript is deeper than " + Depth + " levels");
            }
            if (!value.GetType().IsValueType)
            {
                foreach (var one in above)
                {
                    if (ReferenceEquals(one, value))
                    {
                        throw new InvalidOperationException("What is handed to JavaScript contains itself: a " + value.GetType());
                    }
                }
            }
            above.Add(value);
        }

        void WriteMany(object value)
        {
            var named = value as IDictionary<string, object>;
            if (named != null)
            {
                WriteMap(named);
                return;
            }
            var map = value as IDictionary;
            if (map != null)
            {
                WriteMap(PairsOf(map));
                return;
            }
            var many = value as IEnumerable;
            if (many == null)
            {
                WriteMap(PairsOf(value));
                return;
            }
            text.Append('[');
            var first = true;
            foreach (var one in many)
            {
                if (!first) text.Append(',');
                first = false;
                Write(one);
            }
            text.Append(']');
        }

        void WriteMap(IEnumerable<KeyValuePair<string, object>> pairs)
        {
            text.Append('{');
            var first = true;
            foreach (var pair in pairs)
            {
                if (!first) text.Append(',');
                first = false;
                text.Append('"');
                WriteEscaped(pair.Key);
                text.Append("\":");
                Write(pair.Value);
            }
            text.Append('}');
        }

        static IEnumerable<KeyValuePair<string, object>> PairsOf(IDictionary map)
        {
            foreach (DictionaryEntry pair in map)
            {
                var key = pair.Key as string;
                if (key != null) yield return new KeyValuePair<string, object>(key, pair.Value);
            }
        }

        static IEnumerable<KeyValuePair<string, object>> PairsOf(object value)
        {
            var error = value as Exception;
            if (error != null)
            {
                yield return new KeyValuePair<string, object>("name", value.GetType().FullName);
                yield return new KeyValuePair<string, object>("message", error.Message);
            }
            foreach (var member in MembersOf(value.GetType())) yield return new KeyValuePair<string, object>(member.Name, member.Read(value));
        }

        // The public fields and properties of instances.
        public static Member[] MembersOf(Type type)
        {
            lock (Known)
            {
                Member[] found;
                if (Known.TryGetValue(type, out found)) return found;
                var members = new List<Member>();
                foreach (var field in type.GetFields(BindingFlags.Instance | BindingFlags.Public))
                {
                    members.Add(new Member { Name = field.Name, Read = field.GetValue });
                }
                foreach (var property in type.GetProperties(BindingFlags.Instance | BindingFlags.Public))
                {
                    if (property.GetGetMethod() == null || property.GetIndexParameters().Length > 0) continue;
                    var read = property;
                    members.Add(new Member { Name = property.Name, Read = one => Read(read, one) });
                }
                return Known[type] = members.ToArray();
            }
        }

        static object Read(PropertyInfo property, object one)
        {
            try
            {
                return property.GetValue(one, null);
            }
            catch (TargetInvocationException error)
            {
                throw new InvalidOperationException(
                    "`" + property.Name + "` of a " + one.GetType() + " cannot be read: " + error.InnerException.Message, error.InnerException);
            }
        }

        public struct Member
        {
            public string Name;
            public Func<object, object> Read;
        }
    }
}
