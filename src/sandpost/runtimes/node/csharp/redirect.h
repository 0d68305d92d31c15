// Calls of a loaded library into others, led to functions of ours.

#pragma once

#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

struct Change {
    const char *library;  // of the ones whose path has this in it
    const char *called;
    void *with;
};

void replace(ElfW(Addr) *place, void *with) {
    uintptr_t page = (uintptr_t)place & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);
    if (mprotect((void *)page, (uintptr_t)(place + 1) - page, PROT_READ | PROT_WRITE) == 0) *place = (ElfW(Addr))with;
}

int change(struct dl_phdr_info *library, size_t, void *wanted) {
    const Change *given = (const Change *)wanted;
    if (strstr(library->dlpi_name, given->library) == nullptr) return 0;
    const ElfW(Dyn) *dynamic = nullptr;
    for (int i = 0; i < library->dlpi_phnum; i++) {
        if (library->dlpi_phdr[i].p_type == PT_DYNAMIC) dynamic = (const ElfW(Dyn) *)(library->dlpi_addr + library->dlpi_phdr[i].p_vaddr);
    }
    const ElfW(Rela) *slots = nullptr;
    const ElfW(Sym) *symbols = nullptr;
    const char *names = nullptr;
    size_t size = 0;
    for (; dynamic != nullptr && dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_JMPREL) slots = (const ElfW(Rela) *)dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_PLTRELSZ) size = dynamic->d_un.d_val;
        if (dynamic->d_tag == DT_SYMTAB) symbols = (const ElfW(Sym) *)dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_STRTAB) names = (const char *)dynamic->d_un.d_ptr;
    }
    if (slots == nullptr || symbols == nullptr || names == nullptr) return 1;
    for (size_t i = 0; i < size / sizeof *slots; i++) {
        if (strcmp(names + symbols[ELF64_R_SYM(slots[i].r_info)].st_name, given->called) == 0) {
            replace((ElfW(Addr) *)(library->dlpi_addr + slots[i].r_offset), given->with);
        }
    }
    return 1;
}

// Have `library`, which is loaded, call `with` instead of the function of the name `called`.
void redirect(const char *library, const char *called, void *with) {
    Change wanted = {library, called, with};
    dl_iterate_phdr(change, &wanted);
}

}  // namespace
