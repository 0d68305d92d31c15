// What every part of the translated compiler is compiled with, beside wasm2c's own header.

#ifndef SANDPOST_TYPESCRIPT_H
#define SANDPOST_TYPESCRIPT_H

#include <stdint.h>

#pragma GCC visibility push(hidden)

// The address below which the machine's stack may not grow in a call from JavaScript.
extern uintptr_t typescript_stack_limit;

// Ends the call from JavaScript that runs, with an error. `trap`: one of wasm2c's numbers.
_Noreturn void typescript_trap(int trap);

#pragma GCC visibility pop

// At the beginning of each function: programs decide how deeply the compiler calls itself. wasm2c's own count of calls
// would have to stand for the largest frame. A second stack lies at the beginning of the compiler's memory and grows down
// to 0; no function takes more of it than FRAME_MOST.
#define STACK_CHECK                                                              \
  if (UNLIKELY((uintptr_t)__builtin_frame_address(0) < typescript_stack_limit || \
               instance->w2c_g0 < FRAME_MOST))                                   \
  typescript_trap(WASM_RT_TRAP_EXHAUSTION)

#endif
