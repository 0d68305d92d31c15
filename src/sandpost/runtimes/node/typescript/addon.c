// The compiler of TypeScript as an add-on of Node: its WebAssembly, translated to C by wasm2c, and here what V8 would be
// to it. `bindings.h` is made from wasm2c's header when the image is built: a function for each import, which calls
// JavaScript by `import`, and a table of the exports.
//
// One instance a process, in the thread that made it.

#include <node_api.h>
#include <setjmp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "addon.h"
#include "compiler.h"

// What wasm-rt-impl.c reserves for an instance's memory: no address of WebAssembly lies outside.
#define RESERVED 0x200000000ul
// Of the machine's stack, at most, beside what is left of it for others.
#define STACK_MOST (4ul << 20)
#define ARGUMENTS_MOST 8

typedef struct Z_typescript_instance_t Instance;

// Beside wasm2c's numbers of traps: JavaScript threw, and its error is pending.
enum { THROWN = 1000 };

uintptr_t typescript_stack_limit;

static Instance instance;
static napi_env owner; // of the instance; NULL without one
static napi_ref imports;
static napi_ref buffer; // the ArrayBuffer over the instance's memory, once it was asked for
static uint32_t buffer_size;
static jmp_buf *entry; // of the innermost call from JavaScript

void typescript_trap(int trap) { longjmp(*entry, trap); }

// Values both ways, as WebAssembly and JavaScript hand them to each other.

static napi_value from_u32(uint32_t value) {
  napi_value made = NULL;
  napi_create_int32(owner, (int32_t)value, &made);
  return made;
}

static napi_value from_u64(uint64_t value) {
  napi_value made = NULL;
  napi_create_bigint_int64(owner, (int64_t)value, &made);
  return made;
}

static napi_value from_f64(double value) {
  napi_value made = NULL;
  napi_create_double(owner, value, &made);
  return made;
}

static uint32_t to_u32(napi_value value) {
  int32_t number = 0;
  bool truth = false;
  if (value == NULL || napi_get_value_int32(owner, value, &number) == napi_ok) return (uint32_t)number;
  napi_get_value_bool(owner, value, &truth);
  return truth;
}

static void forget_buffer(void) {
  napi_value known = NULL;
  if (buffer == NULL) return;
  napi_get_reference_value(owner, buffer, &known);
  napi_detach_arraybuffer(owner, known);
  napi_delete_reference(owner, buffer);
  buffer = NULL;
}

// Before JavaScript goes on: an ArrayBuffer over memory that has grown is detached, by which JavaScript knows.
static void tell_growth(void) {
  if (buffer_size != instance.w2c_memory.size) forget_buffer();
}

// Calls the function of JavaScript that an import names. What it throws ends the innermost call from JavaScript, as it
// would go through WebAssembly.
static napi_value import(const char *name, size_t count, const napi_value *given) {
  napi_value from = NULL;
  napi_value function = NULL;
  napi_value result = NULL;
  tell_growth();
  if (napi_get_reference_value(owner, imports, &from) != napi_ok ||
      napi_get_named_property(owner, from, name, &function) != napi_ok ||
      napi_call_function(owner, from, function, count, given, &result) != napi_ok) {
    longjmp(*entry, THROWN);
  }
  return result;
}

typedef struct {
  const char *name;
  napi_value (*call)(Instance *, const napi_value *given);
} Export;

#include "bindings.h"

static napi_value call_export(napi_env caller, napi_callback_info info) {
  size_t count = ARGUMENTS_MOST;
  napi_value given[ARGUMENTS_MOST]; // what is not given is `undefined`
  void *data = NULL;
  napi_get_cb_info(caller, info, &count, given, NULL, &data);
  if (caller != owner) {
    napi_throw_error(caller, NULL, "this instance of the compiler has ended");
    return NULL;
  }
  jmp_buf here;
  jmp_buf *outer = entry;
  int ended = setjmp(here);
  if (ended == 0) {
    if (outer == NULL) {
      struct rlimit stack = {STACK_MOST, STACK_MOST};
      getrlimit(RLIMIT_STACK, &stack);
      size_t most = stack.rlim_cur / 2 < STACK_MOST ? stack.rlim_cur / 2 : STACK_MOST;
      typescript_stack_limit = (uintptr_t)__builtin_frame_address(0) - most;
    }
    entry = &here;
    napi_value result = ((const Export *)data)->call(&instance, given);
    entry = outer;
    tell_growth();
    return result;
  }
  entry = outer;
  tell_growth();
  if (ended != THROWN) napi_throw_error(owner, NULL, wasm_rt_strerror(ended));
  return NULL;
}

// `memory.buffer`: another one when the memory has grown.
static napi_value get_buffer(napi_env caller, napi_callback_info info) {
  napi_value found = NULL;
  if (caller != owner) return NULL;
  tell_growth();
  if (buffer != NULL) {
    napi_get_reference_value(owner, buffer, &found);
    return found;
  }
  buffer_size = instance.w2c_memory.size;
  if (napi_create_external_arraybuffer(owner, instance.w2c_memory.data, buffer_size, NULL, NULL, &found) != napi_ok) {
    napi_throw_error(owner, NULL, "the compiler's memory cannot be reached");
    return NULL;
  }
  napi_create_reference(owner, found, 1, &buffer);
  return found;
}

// Gives back all that the instance has, if there is one and it is not running.
static napi_value end(napi_env caller, napi_callback_info info) {
  if (owner == NULL || caller != owner || entry != NULL) return NULL;
  forget_buffer();
  napi_delete_reference(owner, imports);
  owner = NULL;
  // Before what was used of it, which is all that wasm-rt-impl.c gives back: in between others may take that place.
  const wasm_rt_memory_t *memory = &instance.w2c_memory;
  munmap(memory->data + memory->size, RESERVED - memory->size);
  Z_typescript_free(&instance);
  return NULL;
}

// instantiate(imports): what `WebAssembly.Instance` has as `exports`, but for its table. The instance before ends.
static napi_value instantiate(napi_env caller, napi_callback_info info) {
  size_t count = 1;
  napi_value given = NULL;
  napi_value made = NULL;
  napi_value memory = NULL;
  napi_get_cb_info(caller, info, &count, &given, NULL, NULL);
  end(caller, NULL);
  if (owner != NULL || count < 1 || napi_create_reference(caller, given, 1, &imports) != napi_ok) {
    napi_throw_error(caller, NULL, "the compiler wants its imports, and is there for one thread");
    return NULL;
  }
  owner = caller;
  Z_typescript_instantiate(&instance, NULL);
  napi_create_object(owner, &made);
  for (size_t i = 0; i < sizeof EXPORTS / sizeof *EXPORTS; i++) {
    napi_value function = NULL;
    napi_create_function(owner, EXPORTS[i].name, NAPI_AUTO_LENGTH, call_export, (void *)&EXPORTS[i], &function);
    napi_set_named_property(owner, made, EXPORTS[i].name, function);
  }
  const napi_property_descriptor property = {"buffer", NULL, NULL, get_buffer, NULL, NULL, napi_default, NULL};
  napi_create_object(owner, &memory);
  napi_define_properties(owner, memory, 1, &property);
  napi_set_named_property(owner, made, "memory", memory);
  return made;
}

NAPI_MODULE_INIT() {
  const napi_property_descriptor properties[] = {
    {"instantiate", NULL, instantiate, NULL, NULL, NULL, napi_default, NULL},
    {"end", NULL, end, NULL, NULL, NULL, napi_default, NULL},
  };
  wasm_rt_init();
  if (!wasm_rt_is_initialized()) return NULL;
  Z_typescript_init_module();
  napi_define_properties(env, exports, sizeof properties / sizeof *properties, properties);
  return exports;
}
