// What JavaScript handed to .NET (docs in carry.js).

using System;
using System.Collections.Generic;
using System.Dynamic;
using System.Globalization;
using System.Threading.Tasks;

namespace Sandpost
{
    sealed class Reader
    {
        readonly string text;
        readonly object[] carried;
        readonly List<object> values = new List<object>(); // of the objects that are being read
        int at;

        public Reader(object carried)
        {
            this.carried = carried as object[];
            text = (string)(this.carried == null ? carried : this.carried[0]);
        }

        // The next value of the text. Objects are ExpandoObjects, arrays object[].
        public object Value()
        {
            switch (text[at++])
            {
                case 'n': return null;
                case 't': return true;
                case 'f': return false;
                case 's': return Text();
                case 'd': return Number();
                case '{': return Map();
                case '[': return List();
                case 'u': return Wide((byte[])carried[Count(';')]);
                default: return Ready(carried[Count(';')]);
            }
        }

        object Map()
        {
            var from = values.Count;
            var shape = Shape.None;
            while (text[at] != '}')
            {
                var more = shape.With(text, ref at);
                if (more == null) break;
                shape = more;
                values.Add(Value());
            }
            IDictionary<string, object> map = shape.Make(values, from);
            values.RemoveRange(from, values.Count - from);
            while (text[at] != '}')
            {
                var key = (string)Value();
                map[key] = Value();
            }
            at++;
            return map;
        }

        object[] List()
        {
            var list = new List<object>();
            while (text[at] != ']') list.Add(Value());
            at++;
            return list.ToArray();
        }

        object Number()
        {
            var from = at;
            var end = text.IndexOf(';', at);
            at = end + 1;
            var negative = text[from] == '-';
            long number = 0;
            var digit = negative ? from + 1 : from;
            // What has more digits is a double anyway.
            if (end - digit <= 10)
            {
                while (text[digit] >= '0' && text[digit] <= '9') number = number * 10 + (text[digit++] - '0');
                if (negative) number = -number;
                if (digit == end && number >= int.MinValue && number <= uint.MaxValue)
                {
                    return number <= int.MaxValue ? (int)number : (object)(uint)number;
                }
            }
            return double.Parse(text.Substring(from, end - from), NumberStyles.Float, CultureInfo.InvariantCulture);
        }

        string Text()
        {
            var length = Count(':');
            var found = text.Substring(at, length);
            at += length;
            return found;
        }

        int Count(char end)
        {
            var count = 0;
            for (; text[at] != end; at++) count = count * 10 + (text[at] - '0');
            at++;
            return count;
        }

        static string Wide(byte[] bytes)
        {
            var made = new char[bytes.Length / 2];
            Buffer.BlockCopy(bytes, 0, made, 0, bytes.Length);
            return new string(made);
        }

        static object Ready(object found)
        {
            var function = found as Func<object, Task<object>>;
            return function == null ? found : new Func<object, Task<object>>(new Imported(function).Call);
        }
    }
}
