// Child processes of .NET, in a process where Node has children of its own.
//
// Both would have the one handler of SIGCHLD for themselves: whoever came last took it from the other, whose children
// then never ended. So .NET's stays out of it: what it registers is kept here, and for each child that it forks a thread
// waits, and calls it.

#pragma once

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

const size_t STACK = 64 * 1024;

void (*volatile handler)(int, siginfo_t *, void *);

void *wait_for(void *child) {
    siginfo_t info;
    // It stays to be reaped by .NET.
    while (waitid(P_PID, (id_t)(intptr_t)child, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
    }
    handler(SIGCHLD, nullptr, nullptr);
    return nullptr;
}

int own_sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
    if (number != SIGCHLD) return sigaction(number, wanted, before);
    if (wanted != nullptr && (wanted->sa_flags & SA_SIGINFO)) handler = wanted->sa_sigaction;
    if (before != nullptr) memset(before, 0, sizeof *before);
    return 0;
}

pid_t own_fork() {
    pid_t child = fork();
    if (child <= 0 || handler == nullptr) return child;
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    // Where there is no thread to be had, the end of the child is told with that of the next one.
    pthread_create(&thread, &attributes, wait_for, (void *)(intptr_t)child);
    pthread_attr_destroy(&attributes);
    return child;
}

}  // namespace
