// What has to be said to Mono before it starts.

#include "children.h"
#include "mono/jit/jit.h"
#include "mono/metadata/mono-debug.h"
#include "redirect.h"

namespace {

__attribute__((constructor)) void begin() {
    redirect("libmonosgen", "sigaction", (void *)own_sigaction);
    redirect("libmonosgen", "fork", (void *)own_fork);
    // A fault in WebAssembly is V8's: Mono's handler passes on what is not its own.
    mono_set_signal_chaining(1);
    // Traces then have lines, of assemblies that come with them.
    mono_debug_init(MONO_DEBUG_FORMAT_MONO);
}

}  // namespace
