// Ends of the process that .NET brings about, so that they have the word that they deserve.

using System;
using System.Runtime.InteropServices;
using System.Threading.Tasks;

namespace Sandpost
{
    static class Ends
    {
        const int Abort = 6;

        public static void Watch()
        {
            // At once: what libraries register for an exit runs on whatever thread asked for it, and may crash there.
            AppDomain.CurrentDomain.ProcessExit += (sender, _) =>
            {
                Scope.Current.Flush();
                Log.Write(50, Scope.Current.Id, "Environment.Exit(" + Environment.ExitCode + ") ended the process.");
                _exit(Environment.ExitCode);
            };
            AppDomain.CurrentDomain.UnhandledException += (sender, happened) =>
            {
                var scope = Scope.Last ?? Scope.Current;
                scope.Flush();
                Log.Write(50, scope.Id, "An exception that no code of a thread caught ended the process.\n" + happened.ExceptionObject);
                signal(Abort, IntPtr.Zero); // without Mono's own report of what its threads did
                abort();
            };
            TaskScheduler.UnobservedTaskException += (sender, happened) =>
            {
                Log.Write(50, "", "A task failed and nobody asked for it.\n" + Failure.Text(Failure.Cause(happened.Exception)));
            };
        }

        [DllImport("libc")]
        static extern void _exit(int status);

        [DllImport("libc")]
        static extern IntPtr signal(int number, IntPtr handler);

        [DllImport("libc")]
        static extern void abort();
    }
}
