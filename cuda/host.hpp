// Runs kernels under cuda/ without a GPU: a test compiles them with g++, this file included before all else, and calls
// striate_launch. A thread of a block is a fiber of one thread of the host; blocks run one after another.
//
// What it finds: wrong indices (with the address sanitizer), missing barriers (fibers run in an order drawn from the
// seed), divergent barriers and shuffles, deadlocks, reads of shared memory that nobody wrote (it is NaN when a block
// starts), misaligned packs, background copies that nobody waited for. What it cannot find: races between blocks, what
// depends on the memory model, and time.
//
// A translation unit ends with STRIATE_HOST_ENTRY, which makes `striate_kernel` callable.

#pragma once

#ifdef __CUDACC__
#error "host.hpp is for the compiler of the host"
#endif

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmath>
#include <type_traits>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __launch_bounds__(...)
#define __grid_constant__

namespace striate::host {

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

enum class Wait { None, Block, Warp, Done };

// Where a fiber's registers are while another one runs.
struct Context {
#if defined(__x86_64__)
    void* stack_pointer = nullptr;
#else
    ucontext_t registers;
#endif
    void* shadow = nullptr;  // of the address sanitizer
};

struct AsyncCopy {
    void* to;
    const void* from;
    int bytes, size;
    unsigned group;
};

// What all lanes of a warp do together: `act` sees the operands of the 32 lanes.
using Collective = void (*)(void* const* operands);

struct Fiber {
    Context context;
    char* stack = nullptr;
    unsigned thread = 0;
    Wait wait = Wait::None;
    Collective act = nullptr;
    void* operands = nullptr;
    unsigned group = 0;  // of copies in the background, the one still open
    std::vector<AsyncCopy> copies;
};

struct StaticMemory {
    void* bytes;
    size_t size;
};

constexpr size_t STACK = 256 << 10, SHARED_LIMIT = 227 << 10, REDZONE = 64;
constexpr uint64_t CANARY = 0x5afe57acc0ffee00;
constexpr unsigned MAX_THREADS = 1024, LANES = 32;

struct Machine {
    Context scheduler;
    const void* host_stack = nullptr;  // as the address sanitizer has told
    size_t host_stack_size = 0;
    std::vector<Fiber> fibers;
    std::vector<unsigned> ready;  // a queue whose front is `next_ready`
    size_t next_ready = 0;
    Fiber* current = nullptr;
    unsigned threads = 0, done = 0, at_barrier = 0;
    unsigned arrived[MAX_THREADS / LANES] = {};
    Index block, block_dim, grid_dim;
    unsigned char* shared = nullptr;
    unsigned shared_bytes = 0;
    uint64_t random = 0;
    bool shuffled = false, failed = false;
    char error[512] = "";
    void (*body)(const void*) = nullptr;
    const void* args = nullptr;
};

inline Machine machine;

inline std::vector<StaticMemory>& static_memory() {
    static std::vector<StaticMemory> list;
    return list;
}

#if defined(__x86_64__)
// What a function must preserve goes to the stack, then the stack is exchanged.
asm(".text\n"
    ".type striate_switch, @function\n"
    "striate_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size striate_switch, . - striate_switch\n");
extern "C" __attribute__((visibility("hidden"))) void striate_switch(void** save, void* load);
#endif

// `stack` is the one that is entered (null: the host's own); a fiber that ends gives up its shadow.
inline void exchange(Context& from, Context& to, [[maybe_unused]] const char* stack, [[maybe_unused]] bool ends) {
#if defined(__SANITIZE_ADDRESS__)
    const bool enters_host = stack == nullptr;
    __sanitizer_start_switch_fiber(ends ? nullptr : &from.shadow, enters_host ? machine.host_stack : stack,
                                   enters_host ? machine.host_stack_size : STACK);
#endif
#if defined(__x86_64__)
    striate_switch(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.registers, &to.registers);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.shadow, nullptr, nullptr);
#endif
}

inline void to_scheduler() {
    Fiber* self = machine.current;
    exchange(self->context, machine.scheduler, nullptr, self->wait == Wait::Done);
}

// Ends the launch with an error; the fibers are left where they are. The first error is the one to tell.
__attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
    if (!machine.failed) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(machine.error, sizeof machine.error, format, arguments);
        va_end(arguments);
    }
    machine.failed = true;
    if (machine.current != nullptr) to_scheduler();
}

inline uint64_t draw(uint64_t below) {
    uint64_t& x = machine.random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return x % below;
}

inline void make_ready(unsigned thread) {
    machine.fibers[thread].wait = Wait::None;
    machine.ready.push_back(thread);
}

// Leaves the processor to the others until somebody makes this fiber ready.
inline void pause(Wait why) {
    machine.current->wait = why;
    to_scheduler();
}

inline void sync_block() {
    if (++machine.at_barrier < machine.threads) return pause(Wait::Block);
    machine.at_barrier = 0;
    for (unsigned t = 0; t < machine.threads; ++t) make_ready(t);
    machine.current->wait = Wait::Block;
    to_scheduler();
}

// Waits for the other lanes of the warp; the last one to come acts for all of them.
inline void together(Collective act, void* operands) {
    Fiber& self = *machine.current;
    const unsigned first = self.thread / LANES * LANES;
    self.act = act, self.operands = operands;
    if (++machine.arrived[first / LANES] < LANES) return pause(Wait::Warp);
    machine.arrived[first / LANES] = 0;
    void* all[LANES];
    for (unsigned lane = 0; lane < LANES; ++lane) {
        const Fiber& other = machine.fibers[first + lane];
        if (other.act != act)
            return fail("divergent warp: threads %u and %u of block %u,%u,%u wait in different collectives",
                        self.thread, other.thread, machine.block.x, machine.block.y, machine.block.z);
        all[lane] = other.operands;
    }
    act(all);
    for (unsigned lane = 0; lane < LANES; ++lane) make_ready(first + lane);
    self.wait = Wait::Warp;
    to_scheduler();
}

inline void check_aligned(const void* address, unsigned long bytes, const char* what) {
    if (uintptr_t(address) % bytes != 0)
        fail("misaligned: %s at %p needs %lu bytes (thread %u)", what, address, bytes,
             machine.current ? machine.current->thread : 0);
}

inline bool is_shared(const void* address, size_t bytes) {
    const auto inside = [&](const void* base, size_t size) {
        const uintptr_t at = uintptr_t(address), low = uintptr_t(base);
        return at >= low && at + bytes <= low + size;
    };
    if (inside(machine.shared, machine.shared_bytes)) return true;
    for (const StaticMemory& memory : static_memory())
        if (inside(memory.bytes, memory.size)) return true;
    return false;
}

inline void check_shared(const void* address, size_t bytes, const char* what) {
    check_aligned(address, bytes, what);
    if (!is_shared(address, bytes)) fail("%s: %p is not in shared memory", what, address);
}

// Static shared memory that registers itself, so that it can be poisoned and recognised.
template <class T, size_t N>
struct Static {
    alignas(16) T array[N];
    Static() {
        static_memory().push_back({array, sizeof array});
        memset(static_cast<void*>(array), 0xff, sizeof array);
    }
};

inline void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &machine.host_stack, &machine.host_stack_size);
#endif
    machine.body(machine.args);
    ++machine.done;
    pause(Wait::Done);
    abort();
}

inline void prepare(Fiber& fiber, unsigned thread) {
    if (fiber.stack == nullptr) {
        void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) abort();
        fiber.stack = static_cast<char*>(memory);
        memcpy(fiber.stack, &CANARY, sizeof CANARY);
    }
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(fiber.stack, STACK);
#endif
    fiber.thread = thread, fiber.group = 0, fiber.act = nullptr;
    fiber.copies.clear();
#if defined(__x86_64__)
    // Six registers, then where to return to; the stack is as a call would have left it.
    void** top = reinterpret_cast<void**>(fiber.stack + STACK) - 8;
    top[6] = reinterpret_cast<void*>(&fiber_main), top[7] = nullptr;
    fiber.context.stack_pointer = top;
#else
    getcontext(&fiber.context.registers);
    fiber.context.registers.uc_stack.ss_sp = fiber.stack;
    fiber.context.registers.uc_stack.ss_size = STACK;
    fiber.context.registers.uc_link = nullptr;
    makecontext(&fiber.context.registers, fiber_main, 0);
#endif
    make_ready(thread);
}

inline unsigned next_fiber() {
    std::vector<unsigned>& ready = machine.ready;
    const size_t front = machine.next_ready++;
    if (machine.shuffled) {
        const size_t drawn = front + draw(ready.size() - front);
        const unsigned thread = ready[drawn];
        ready[drawn] = ready[front];
        ready[front] = thread;
    }
    const unsigned thread = ready[front];
    if (machine.next_ready == ready.size()) ready.clear(), machine.next_ready = 0;
    return thread;
}

inline void tell_deadlock() {
    unsigned first[2] = {machine.threads, machine.threads}, count[2] = {0, 0};
    for (unsigned t = 0; t < machine.threads; ++t)
        if (const Wait wait = machine.fibers[t].wait; wait == Wait::Block || wait == Wait::Warp) {
            const int kind = wait == Wait::Warp;
            if (count[kind]++ == 0) first[kind] = t;
        }
    fail("deadlock in block %u,%u,%u: of %u threads %u wait at a block barrier (first %u), %u in a warp (first %u), "
         "%u have ended",
         machine.block.x, machine.block.y, machine.block.z, machine.threads, count[0], first[0], count[1], first[1],
         machine.done);
}

inline void run_block() {
    machine.done = machine.at_barrier = 0;
    machine.ready.clear(), machine.next_ready = 0;
    memset(machine.arrived, 0, sizeof machine.arrived);
    memset(machine.shared, 0xff, machine.shared_bytes);
    for (const StaticMemory& memory : static_memory()) memset(memory.bytes, 0xff, memory.size);
    for (unsigned t = 0; t < machine.threads; ++t) prepare(machine.fibers[t], t);
    while (!machine.failed && !machine.ready.empty()) {
        machine.current = &machine.fibers[next_fiber()];
        exchange(machine.scheduler, machine.current->context, machine.current->stack, false);
        machine.current = nullptr;
    }
    if (!machine.failed && machine.done < machine.threads) tell_deadlock();
    for (unsigned t = 0; t < machine.threads; ++t)
        if (memcmp(machine.fibers[t].stack, &CANARY, sizeof CANARY) != 0) {
            fprintf(stderr, "striate: thread %u left its stack of %zu bytes\n", t, STACK);
            abort();
        }
}

struct Launch {
    const unsigned* grid;
    unsigned block, shared_bytes;
    const void* args;
    size_t args_size, expected_size;
    unsigned seed;
};

inline int start(const Launch& launch, void (*body)(const void*)) {
    machine.failed = false, machine.error[0] = 0, machine.current = nullptr;
    if (launch.args_size != launch.expected_size)
        fail("arguments: expected %zu bytes, got %zu", launch.expected_size, launch.args_size);
    else if (launch.block == 0 || launch.block > MAX_THREADS || launch.block % LANES != 0)
        fail("block: expected whole warps, at most %u threads, got %u", MAX_THREADS, launch.block);
    else if (launch.shared_bytes > SHARED_LIMIT)
        fail("shared memory: expected at most %zu bytes, got %u", SHARED_LIMIT, launch.shared_bytes);
    else if (launch.grid[0] == 0 || launch.grid[1] - 1u >= 65535 || launch.grid[2] - 1u >= 65535)
        fail("grid: got %u,%u,%u", launch.grid[0], launch.grid[1], launch.grid[2]);
    if (machine.failed) return 1;

    // Exactly the bytes asked for, at the end of the allocation, so that the address sanitizer sees one too many.
    const size_t room = (launch.shared_bytes + 15) / 16 * 16 + REDZONE;
    std::vector<unsigned char> memory(room + 16);
    machine.shared = memory.data() + (16 - uintptr_t(memory.data()) % 16) % 16;
    machine.shared_bytes = launch.shared_bytes;
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(machine.shared + launch.shared_bytes, REDZONE / 2);
#endif
    machine.threads = launch.block, machine.block_dim = {launch.block, 1, 1};
    machine.grid_dim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    machine.shuffled = launch.seed != 0;
    machine.random = launch.seed * 0x9e3779b97f4a7c15ull + 1;
    machine.body = body, machine.args = launch.args;
    if (machine.fibers.size() < launch.block) machine.fibers.resize(launch.block);
    Index& at = machine.block;
    for (at.z = 0; at.z < machine.grid_dim.z && !machine.failed; ++at.z)
        for (at.y = 0; at.y < machine.grid_dim.y && !machine.failed; ++at.y)
            for (at.x = 0; at.x < machine.grid_dim.x && !machine.failed; ++at.x) run_block();
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory.data(), memory.size());
#endif
    return machine.failed;
}

template <auto kernel>
struct Entry;

template <class Args, void (*kernel)(Args)>
struct Entry<kernel> {
    static_assert(std::is_trivially_copyable_v<Args> && alignof(Args) <= 8, "a plain struct of at most 8-byte alignment");
    static void body(const void* args) {
        Args copy;
        memcpy(static_cast<void*>(&copy), args, sizeof copy);
        kernel(copy);
    }
    static int launch(Launch launch) {
        launch.expected_size = sizeof(Args);
        return start(launch, body);
    }
};

}  // namespace striate::host

#define threadIdx (::striate::host::Index{::striate::host::machine.current->thread, 0, 0})
#define blockIdx (::striate::host::machine.block)
#define blockDim (::striate::host::machine.block_dim)
#define gridDim (::striate::host::machine.grid_dim)

#define STRIATE_HOST_ENTRY                                                                                           \
    extern "C" const char* striate_error() { return ::striate::host::machine.error; }                                \
    extern "C" int striate_launch(const unsigned grid[3], unsigned block, unsigned shared_bytes, const void* args,   \
                                  unsigned long size, unsigned seed) {                                               \
        return ::striate::host::Entry<&striate_kernel>::launch({grid, block, shared_bytes, args, size, 0, seed});    \
    }
