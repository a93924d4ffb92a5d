// Runs kernels under cuda/ without a GPU: a test compiles them with g++, this file included before all else, and calls
// striate_launch. A thread of a block is a fiber of one thread of the host; blocks run one after another.
//
// What it finds: wrong indices (with the address sanitizer), missing barriers (fibers run in an order drawn from the
// seed), divergent barriers and shuffles, deadlocks, reads of shared memory that nobody wrote (it is NaN when a block
// starts), misaligned packs, background copies that nobody waited for. What it cannot find: races between blocks, what
// depends on the memory model, and time.
//
// A translation unit ends with STRIATE_HOST_ENTRY, which makes `striate_kernel` callable, and is linked with host.cpp,
// where the machine itself is.

#pragma once

#ifdef __CUDACC__
#error "host.hpp is for the compiler of the host"
#endif

#include <stdint.h>
#include <string.h>

#include <cmath>
#include <type_traits>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __launch_bounds__(...)
#define __grid_constant__

// Not seen by other libraries, so that the machine of each is its own and is addressed directly.
#pragma GCC visibility push(hidden)
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

extern Machine machine;

// Ends the launch with an error; the fibers are left where they are. The first error is the one to tell.
__attribute__((format(printf, 1, 2))) void fail(const char* format, ...);
void sync_block();
// Waits for the other lanes of the warp; the last one to come acts for all of them.
void together(Collective act, void* operands);
void fail_aligned(const void* address, unsigned long bytes, const char* what);
void check_shared(const void* address, size_t bytes, const char* what);
void add_static(void* bytes, size_t size);
// Copies of this thread in the background, which happen when they are waited for.
void copy_later(void* to, const void* from, int bytes, int size);
void finish_copies(unsigned pending);

inline void check_aligned(const void* address, unsigned long bytes, const char* what) {
    if (uintptr_t(address) % bytes != 0) fail_aligned(address, bytes, what);
}

// Static shared memory that registers itself, so that it can be poisoned and recognised.
template <class T, size_t N>
struct Static {
    alignas(16) T array[N];
    Static() {
        add_static(array, sizeof array);
        memset(static_cast<void*>(array), 0xff, sizeof array);
    }
};

struct Launch {
    const unsigned* grid;
    unsigned block, shared_bytes;
    const void* args;
    size_t args_size, expected_size;
    unsigned seed;
};

int start(const Launch& launch, void (*body)(const void*));

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
#pragma GCC visibility pop

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
