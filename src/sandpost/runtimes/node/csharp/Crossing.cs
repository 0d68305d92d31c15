// Functions on their way between JavaScript and .NET, and what goes with a call.

using System;
using System.Threading.Tasks;

namespace Sandpost
{
    // A .NET function that JavaScript calls, with whose the call is and the input. It never fails: what Tree makes says so.
    sealed class Exported
    {
        readonly Func<object, Task<object>> function;

        public Exported(Func<object, Task<object>> function)
        {
            this.function = function;
        }

        public Task<object> Call(object payload)
        {
            // The runtime asks whether there is a function at all.
            if (payload == null) return Task.FromResult<object>(null);
            return Run(new Reader(payload));
        }

        async Task<object> Run(Reader input)
        {
            var scope = new Scope((string)input.Value());
            Scope.Current = scope;
            var done = false;
            try
            {
                var task = function(input.Value());
                var result = task == null ? null : await task.ConfigureAwait(false);
                done = true;
                return Tree.Of(0, result);
            }
            catch (Exception error)
            {
                return Failure.Of(error, done);
            }
            finally
            {
                scope.Flush();
            }
        }
    }

    // A JavaScript function that .NET calls. The runtime's side takes what Tree makes, and answers what Reader reads.
    sealed class Imported
    {
        readonly Func<object, Task<object>> function;

        public Imported(Func<object, Task<object>> function)
        {
            this.function = function;
        }

        public async Task<object> Call(object payload)
        {
            return new Reader(await function(Tree.Of(0, payload)).ConfigureAwait(false)).Value();
        }
    }
}
