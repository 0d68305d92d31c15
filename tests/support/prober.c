/* Makes the system calls that it is told to make and says what became of each.
 *
 * Reads jobs from standard input until its end and writes an outcome for each to standard output, in their order.
 * Every call is made in a child of its own, which has half a second. x86_64, without libc: what it does by itself is
 * in sight here.
 */

typedef unsigned long u64;

struct job {
    u64 entry; /* 0: syscall, 1: int 0x80 */
    u64 number;
    u64 arguments[6];
};

enum { RETURNED, SIGNALLED, ENDED, SILENT };

struct outcome {
    long state;
    long value; /* what the call returned; the signal; the exit status */
};

enum {
    READ = 0, WRITE = 1, MMAP = 9, FORK = 57, EXIT_GROUP = 231, WAIT4 = 61, KILL = 62, PPOLL = 271, PIDFD_OPEN = 434,
};

static inline __attribute__((always_inline)) long call(u64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline __attribute__((always_inline)) long old(u64 number, u64 a, u64 b, u64 c, u64 d, u64 e)
{
    int result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"((unsigned)number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory");
    return result;
}

static void *pages(u64 bytes)
{
    return (void *)call(MMAP, 0, bytes, 3, 0x21, (u64)-1, 0); /* shared with children */
}

static void probe(const struct job *job, volatile struct outcome *seen)
{
    const u64 *with = job->arguments;
    seen->state = ENDED;
    long pid = call(FORK, 0, 0, 0, 0, 0, 0);
    if (pid == 0) {
        /* All in one frame and without a return: a call may make a process that runs on this very stack. */
        long made = job->entry ? old(job->number, with[0], with[1], with[2], with[3], with[4])
                               : call(job->number, with[0], with[1], with[2], with[3], with[4], with[5]);
        seen->value = made;
        seen->state = RETURNED;
        for (;;)
            call(EXIT_GROUP, 0, 0, 0, 0, 0, 0);
    }
    struct { int fd; short events, revents; } ends = {(int)call(PIDFD_OPEN, (u64)pid, 0, 0, 0, 0, 0), 1, 0};
    u64 patience[2] = {0, 500000000};
    int silent = call(PPOLL, (u64)&ends, 1, (u64)patience, 0, 0, 0) == 0;
    if (silent)
        call(KILL, (u64)pid, 9, 0, 0, 0, 0);
    call(3 /* close */, (u64)ends.fd, 0, 0, 0, 0, 0);
    int status = 0;
    call(WAIT4, (u64)pid, (u64)&status, 0x40000000 /* __WALL */, 0, 0, 0);
    if (seen->state == RETURNED)
        return;
    int signal = status & 0x7f;
    seen->state = silent ? SILENT : signal ? SIGNALLED : ENDED;
    seen->value = signal ? signal : status >> 8 & 0xff;
}

__attribute__((noreturn, used)) static void begin(void)
{
    const u64 most = 16 << 20;
    char *jobs = pages(most);
    u64 have = 0;
    for (long got; (got = call(READ, 0, (u64)(jobs + have), most - have, 0, 0, 0)) > 0;)
        have += (u64)got;
    u64 count = have / sizeof(struct job);
    struct outcome *outcomes = pages(count * sizeof(struct outcome) + 1);
    for (u64 i = 0; i < count; i++)
        probe((const struct job *)jobs + i, outcomes + i);
    const char *rest = (const char *)outcomes;
    u64 left = count * sizeof(struct outcome);
    for (long put; left > 0 && (put = call(WRITE, 1, (u64)rest, left, 0, 0, 0)) > 0; rest += put)
        left -= (u64)put;
    for (;;)
        call(EXIT_GROUP, left > 0, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n and $-16, %rsp\n call begin\n");
