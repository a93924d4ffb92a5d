// The machine of host.hpp: fibers, barriers, collectives of warps, and launches. Compiled once and linked to every
// kernel.

#include "host.hpp"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace striate::host {

Machine machine;

static std::vector<StaticMemory>& static_memory() {
    static std::vector<StaticMemory> list;
    return list;
}

void add_static(void* bytes, size_t size) { static_memory().push_back({bytes, size}); }

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
static void exchange(Context& from, Context& to, [[maybe_unused]] const char* stack, [[maybe_unused]] bool ends) {
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

static void to_scheduler() {
    Fiber* self = machine.current;
    exchange(self->context, machine.scheduler, nullptr, self->wait == Wait::Done);
}

void fail(const char* format, ...) {
    if (!machine.failed) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(machine.error, sizeof machine.error, format, arguments);
        va_end(arguments);
    }
    machine.failed = true;
    if (machine.current != nullptr) to_scheduler();
}

static uint64_t draw(uint64_t below) {
    uint64_t& x = machine.random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return x % below;
}

static void make_ready(unsigned thread) {
    machine.fibers[thread].wait = Wait::None;
    machine.ready.push_back(thread);
}

// Leaves the processor to the others until somebody makes this fiber ready.
static void pause(Wait why) {
    machine.current->wait = why;
    to_scheduler();
}

void sync_block() {
    if (++machine.at_barrier < machine.threads) return pause(Wait::Block);
    machine.at_barrier = 0;
    for (unsigned t = 0; t < machine.threads; ++t) make_ready(t);
    machine.current->wait = Wait::Block;
    to_scheduler();
}

void together(Collective act, void* operands) {
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

void fail_aligned(const void* address, unsigned long bytes, const char* what) {
    fail("misaligned: %s at %p needs %lu bytes (thread %u)", what, address, bytes,
         machine.current ? machine.current->thread : 0);
}

static bool is_shared(const void* address, size_t bytes) {
    const auto inside = [&](const void* base, size_t size) {
        const uintptr_t at = uintptr_t(address), low = uintptr_t(base);
        return at >= low && at + bytes <= low + size;
    };
    if (inside(machine.shared, machine.shared_bytes)) return true;
    for (const StaticMemory& memory : static_memory())
        if (inside(memory.bytes, memory.size)) return true;
    return false;
}

void check_shared(const void* address, size_t bytes, const char* what) {
    check_aligned(address, bytes, what);
    if (!is_shared(address, bytes)) fail("%s: %p is not in shared memory", what, address);
}

void copy_later(void* to, const void* from, int bytes, int size) {
    memset(to, 0xff, size_t(bytes));
    Fiber& self = *machine.current;
    self.copies.push_back({to, from, bytes, size, self.group});
}

void finish_copies(unsigned pending) {
    Fiber& self = *machine.current;
    std::vector<AsyncCopy> later;
    for (const AsyncCopy& copy : self.copies) {
        if (copy.group + pending >= self.group) {
            later.push_back(copy);
            continue;
        }
        memcpy(copy.to, copy.from, size_t(copy.size));
        memset(static_cast<char*>(copy.to) + copy.size, 0, size_t(copy.bytes - copy.size));
    }
    self.copies.swap(later);
}

static void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &machine.host_stack, &machine.host_stack_size);
#endif
    machine.body(machine.args);
    ++machine.done;
    pause(Wait::Done);
    abort();
}

static void prepare(Fiber& fiber, unsigned thread) {
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

static unsigned next_fiber() {
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

static void tell_deadlock() {
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

static void run_block() {
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

int start(const Launch& launch, void (*body)(const void*)) {
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

}  // namespace striate::host
