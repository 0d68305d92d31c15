// What has to be arranged for CoreCLR before it starts.

#include <dlfcn.h>

#include "children.h"
#include "redirect.h"

namespace {

// Node has an OpenSSL in itself and shows it to all: another one would call functions of Node's. It looks among its own
// first, if it is loaded like this before .NET's library asks for it.
void *own_dlopen(const char *path, int flags) {
    if (path != nullptr && strstr(path, "Cryptography.Native.OpenSsl") != nullptr) {
        dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    }
    return dlopen(path, flags);
}

__attribute__((constructor)) void begin() {
    // What is loaded already CoreCLR finds as it is. It is there as long as this, which holds it.
    if (dlopen(DOTNET "/libcoreclr.so", RTLD_LAZY) != nullptr) redirect("libcoreclr.so", "dlopen", (void *)own_dlopen);
    if (dlopen(DOTNET "/libSystem.Native.so", RTLD_LAZY) != nullptr) {
        redirect("libSystem.Native.so", "sigaction", (void *)own_sigaction);
        // Not by `vfork`: its child would return from ours into what is the parent's.
        redirect("libSystem.Native.so", "vfork", (void *)own_fork);
    }
}

}  // namespace
