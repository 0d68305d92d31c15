// Console.Write and its kin, as frames of docs/runtime.md on descriptor 3.

using System;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

namespace Sandpost
{
    // Whose the running code is: what was begun in a call belongs to it, wherever it runs on.
    sealed class Scope
    {
        static readonly AsyncLocal<Scope> Running = new AsyncLocal<Scope>(Changed);
        static readonly Scope Nobody = new Scope("");

        public readonly string Id;
        Line output; // like the other, once something was written to it
        Line errors;

        public Scope(string id)
        {
            Id = id;
        }

        public static Scope Current
        {
            get { return Running.Value ?? Nobody; }
            set { Running.Value = value; }
        }

        // The last one on this thread: when an exception has left all of a thread's code, it runs in nobody's call.
        [ThreadStatic]
        public static Scope Last;

        static void Changed(AsyncLocalValueChangedArgs<Scope> change)
        {
            if (change.CurrentValue != null) Last = change.CurrentValue;
        }

        public void Write(int level, string text)
        {
            Line line;
            lock (this)
            {
                if (level == 30) line = output ?? (output = new Line(level));
                else line = errors ?? (errors = new Line(level));
            }
            line.Write(Id, text);
        }

        public void Flush()
        {
            if (output != null) output.Flush(Id);
            if (errors != null) errors.Flush(Id);
        }
    }

    // What was written since the last end of a line.
    sealed class Line
    {
        const int Longest = 65536;

        readonly int level;
        readonly StringBuilder text = new StringBuilder();

        public Line(int level)
        {
            this.level = level;
        }

        public void Write(string id, string more)
        {
            lock (text)
            {
                var from = 0;
                for (var end = more.IndexOf('\n'); end >= 0; end = more.IndexOf('\n', from))
                {
                    text.Append(more, from, end - from);
                    Send(id);
                    from = end + 1;
                }
                text.Append(more, from, more.Length - from);
                if (text.Length > Longest) Send(id);
            }
        }

        public void Flush(string id)
        {
            lock (text)
            {
                if (text.Length > 0) Send(id);
            }
        }

        void Send(string id)
        {
            if (text.Length > 0 && text[text.Length - 1] == '\r') text.Length--;
            Log.Write(level, id, text.ToString());
            text.Clear();
        }
    }

    sealed class LogWriter : TextWriter
    {
        readonly int level;

        public LogWriter(int level)
        {
            this.level = level;
            CoreNewLine = new[] { '\n' };
        }

        public override Encoding Encoding
        {
            get { return Encoding.UTF8; }
        }

        public override void Write(char value)
        {
            Scope.Current.Write(level, value.ToString());
        }

        public override void Write(char[] buffer, int index, int count)
        {
            Scope.Current.Write(level, new string(buffer, index, count));
        }

        public override void Write(string value)
        {
            if (value != null) Scope.Current.Write(level, value);
        }

        public override void WriteLine(string value)
        {
            Scope.Current.Write(level, value + "\n");
        }

        public override void Flush()
        {
            Scope.Current.Flush();
        }
    }

    static class Log
    {
        const int Frame = 4096; // PIPE_BUF: written whole or not at all
        const int Header = 8;
        const int Tries = 25; // of 20 ms, while the pipe is full
        const int Full = 11; // EAGAIN

        static readonly byte[] Bytes = new byte[Frame];
        static bool open;
        static long dropped;

        public static void Start(bool there)
        {
            open = there;
            Console.SetOut(new LogWriter(30));
            Console.SetError(new LogWriter(50));
            Console.SetIn(TextReader.Null);
        }

        // A record; a long one becomes several, since those of JavaScript's thread may come between frames.
        public static void Write(int level, string id, string text)
        {
            if (!open) return;
            lock (Bytes)
            {
                if (dropped > 0 && Send(40, 2, id, dropped + " log records of C# were dropped: they came faster than they are read", 1)) dropped = 0;
                var room = (Frame - Header - id.Length) / 3;
                var at = 0;
                do
                {
                    var length = Math.Min(room, text.Length - at);
                    if (at + length < text.Length && char.IsHighSurrogate(text[at + length - 1])) length--;
                    if (!Send(level, 0, id, text.Substring(at, length), dropped > 0 ? 1 : Tries)) dropped++;
                    at += length;
                }
                while (at < text.Length);
            }
        }

        static bool Send(int level, int flags, string id, string text, int tries)
        {
            var start = Header + id.Length;
            var length = Encoding.UTF8.GetBytes(text, 0, text.Length, Bytes, start);
            Encoding.ASCII.GetBytes(id, 0, id.Length, Bytes, Header);
            Bytes[0] = 0xf5;
            Bytes[1] = 1;
            Bytes[2] = (byte)level;
            Bytes[3] = (byte)flags;
            Bytes[4] = (byte)(length >> 8);
            Bytes[5] = (byte)length;
            Bytes[6] = (byte)id.Length;
            Bytes[7] = 0;
            for (var left = tries; write(3, Bytes, (IntPtr)(start + length)) == (IntPtr)(-1); left--)
            {
                if (left == 1 || Marshal.GetLastWin32Error() != Full) return false;
                Thread.Sleep(20);
            }
            return true;
        }

        [DllImport("libc", SetLastError = true)]
        static extern IntPtr write(int descriptor, byte[] bytes, IntPtr count);
    }
}
