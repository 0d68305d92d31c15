// Ends of the process that .NET brings about, so that they have the word that they deserve.

using System;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace Sandpost
{
    static class Ends
    {
        const int Abort = 6;
        const int Patience = 500; // ms for JavaScript's thread to answer the call, if it is not busy with something else

        static Func<object, Task<object>> told;
        static int home; // JavaScript's thread

        // `ends`: told of an end before it comes, with whose it is, its word and a message.
        public static void Watch(Func<object, Task<object>> ends)
        {
            told = ends;
            home = Thread.CurrentThread.ManagedThreadId;
            // At once: what libraries register for an exit runs on whatever thread asked for it, and may crash there.
            AppDomain.CurrentDomain.ProcessExit += (sender, _) =>
            {
                Tell(Scope.Current, "exit", "Environment.Exit(" + Environment.ExitCode + ") ended the process.");
                _exit(Environment.ExitCode);
            };
            AppDomain.CurrentDomain.UnhandledException += (sender, happened) =>
            {
                var what = happened.ExceptionObject;
                Tell(Scope.Last ?? Scope.Current, "crash", "An exception that no code of a thread caught ended the process.\n" + what);
                signal(Abort, IntPtr.Zero); // without Mono's own report of what its threads did
                abort();
            };
            TaskScheduler.UnobservedTaskException += (sender, happened) =>
            {
                Log.Write(50, "", "A task failed and nobody asked for it.\n" + Failure.Text(Failure.Cause(happened.Exception)));
            };
        }

        // Have JavaScript answer the call and write the record; where it cannot, or there is no call, write that alone.
        static void Tell(Scope scope, string word, string message)
        {
            scope.Flush();
            var done = false;
            try
            {
                var payload = new object[] { scope.Id, word, message };
                if (scope.Id != "") done = Thread.CurrentThread.ManagedThreadId == home ? Here(payload) : Aside(payload);
            }
            catch (Exception)
            {
                // Edge.js is another one, or there is room for no further thread.
            }
            if (!done) Log.Write(50, scope.Id, message);
        }

        // On JavaScript's own thread Edge.js only makes a note of a call. This is what it does when it comes to that.
        static bool Here(object payload)
        {
            var type = told.Target.GetType().Assembly.GetType("NodejsFuncInvokeContext");
            type.GetMethod("CallFuncOnV8Thread").Invoke(Activator.CreateInstance(type, told.Target, payload), null);
            return true;
        }

        // On a thread that may wait for good: Edge.js lets one after another come to JavaScript's.
        static bool Aside(object payload)
        {
            var done = false;
            var thread = new Thread(() =>
            {
                try
                {
                    done = told(payload).Wait(Patience);
                }
                catch (Exception)
                {
                    // It was not told: that is what the caller reads.
                }
            }) { IsBackground = true };
            thread.Start();
            return thread.Join(Patience) && done;
        }

        [DllImport("libc")]
        static extern void _exit(int status);

        [DllImport("libc")]
        static extern IntPtr signal(int number, IntPtr handler);

        [DllImport("libc")]
        static extern void abort();
    }
}
