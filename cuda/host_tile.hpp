// The functions of tile.cuh on the host: the same layouts as the instructions, every operand checked. tile.cuh says
// what each does.

#pragma once

#ifndef STRIATE_HOST_ARCH
#define STRIATE_HOST_ARCH 900
#endif
#define STRIATE_ARCH STRIATE_HOST_ARCH
#define STRIATE_SHARED_BYTES(name) unsigned char* name = ::striate::host::machine.shared
#define STRIATE_SHARED(type, name, n)                           \
    static ::striate::host::Static<type, (n)> name##_of_block; \
    type(&name)[n] = name##_of_block.array

namespace striate {

STRIATE_DEVICE int lane_index() { return int(threadIdx.x) % WARP; }
STRIATE_DEVICE int warp_index() { return int(threadIdx.x) / WARP; }

STRIATE_DEVICE void sync_block() { host::sync_block(); }
STRIATE_DEVICE void sync_warp() {
    host::together([](void* const*) {}, nullptr);
}

namespace host {

enum class Shuffle { Xor, Down, Idx };

// Lane i wants the value of a lane that `how` computes from its n; a lane outside the warp leaves it its own.
template <class T, Shuffle how>
T shuffle(T x, int n) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    struct Operands {
        T x;
        int n;
    } mine{x, n};
    together(
        [](void* const* all) {
            T result[WARP];
            for (int lane = 0; lane < WARP; ++lane) {
                const Operands& operands = *static_cast<Operands*>(all[lane]);
                const int from = how == Shuffle::Xor    ? lane ^ operands.n
                                 : how == Shuffle::Down ? lane + operands.n
                                                        : operands.n & (WARP - 1);
                result[lane] = static_cast<Operands*>(all[from >= 0 && from < WARP ? from : lane])->x;
            }
            for (int lane = 0; lane < WARP; ++lane) static_cast<Operands*>(all[lane])->x = result[lane];
        },
        &mine);
    return mine.x;
}

}  // namespace host

template <class T>
STRIATE_DEVICE T shuffle_xor(T x, int mask) {
    return host::shuffle<T, host::Shuffle::Xor>(x, mask);
}
template <class T>
STRIATE_DEVICE T shuffle_down(T x, int delta) {
    return host::shuffle<T, host::Shuffle::Down>(x, delta);
}
template <class T>
STRIATE_DEVICE T shuffle_idx(T x, int lane) {
    return host::shuffle<T, host::Shuffle::Idx>(x, lane);
}
STRIATE_DEVICE u32 ballot(bool flag) {
    u32 mine = flag;
    host::together(
        [](void* const* all) {
            u32 flags = 0;
            for (int lane = 0; lane < WARP; ++lane) flags |= *static_cast<u32*>(all[lane]) << lane;
            for (int lane = 0; lane < WARP; ++lane) *static_cast<u32*>(all[lane]) = flags;
        },
        &mine);
    return mine;
}

namespace host {

// Element `i` of a row that starts at `row`, an address in shared memory.
inline u32 element(const void* row, int i) { return static_cast<const u16*>(row)[i]; }

struct Matrices {
    u32* r;
    const void* row;
};

// Lane i receives elements 2 (i % 4) and the next of row i / 4, or of that column.
template <int COUNT, bool TRANS>
void load_matrices(void* const* all) {
    for (int matrix = 0; matrix < COUNT; ++matrix)
        for (int lane = 0; lane < WARP; ++lane) {
            const int line = lane / 4, pair = lane % 4 * 2;
            const auto row = [&](int j) { return static_cast<Matrices*>(all[8 * matrix + j])->row; };
            u32& target = static_cast<Matrices*>(all[lane])->r[matrix];
            target = TRANS ? element(row(pair), line) | element(row(pair + 1), line) << 16
                           : element(row(line), pair) | element(row(line), pair + 1) << 16;
        }
}

}  // namespace host

template <int COUNT, bool TRANS = false>
STRIATE_DEVICE void ldmatrix(u32* r, const void* row) {
    static_assert(COUNT == 1 || COUNT == 2 || COUNT == 4, "ldmatrix reads 1, 2 or 4 matrices");
    // Lanes whose row is of no matrix may bring any address.
    if (lane_index() < 8 * COUNT) host::check_shared(row, 16, "row of ldmatrix");
    u32 loaded[COUNT] = {};
    host::Matrices mine{loaded, row};
    host::together(host::load_matrices<COUNT, TRANS>, &mine);
    for (int matrix = 0; matrix < COUNT; ++matrix) r[matrix] = loaded[matrix];
}

STRIATE_DEVICE u32 to_tf32(float x) {
    const u32 bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffe000u;
    return (bits + 0x1000u) & 0xffffe000u;
}

namespace host {

typedef float Row __attribute__((vector_size(32)));

// The operands of a lane, and of the whole warp: d[16][8] += a[16][depth] b[depth][8].
struct Product {
    float* d;
    const u32 *a, *b;
};

inline const float* halves() {
    static float table[1 << 16];
    static const bool made = [] {
        for (u32 bits = 0; bits < 1 << 16; ++bits) table[bits] = widen(Half{u16(bits)});
        return true;
    }();
    (void)made;
    return table;
}

inline float value(Half x) { return halves()[x.bits]; }
inline float value(Bfloat x) { return widen(x); }

template <int DEPTH>
void accumulate(void* const* all, const float (&a)[16][DEPTH], const Row (&b)[DEPTH]) {
    float d[16][8];
    for (int lane = 0; lane < WARP; ++lane)
        for (int i = 0; i < 4; ++i)
            d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = static_cast<Product*>(all[lane])->d[i];
    for (int row = 0; row < 16; ++row) {
        Row sum;
        memcpy(&sum, d[row], sizeof sum);
        for (int k = 0; k < DEPTH; ++k) sum += a[row][k] * b[k];
        memcpy(d[row], &sum, sizeof sum);
    }
    for (int lane = 0; lane < WARP; ++lane)
        for (int i = 0; i < 4; ++i)
            static_cast<Product*>(all[lane])->d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

template <class T, int DEPTH>
void multiply_halves(void* const* all) {
    float a[16][DEPTH];
    Row b[DEPTH];
    for (int lane = 0; lane < WARP; ++lane) {
        const Product& mine = *static_cast<Product*>(all[lane]);
        const int line = lane / 4, pair = lane % 4 * 2;
        for (int e = 0; e < 2; ++e) {
            for (int r = 0; r < DEPTH / 4; ++r)
                a[line + r % 2 * 8][pair + e + r / 2 * 8] = value(T{u16(mine.a[r] >> 16 * e)});
            for (int r = 0; r < DEPTH / 8; ++r) b[pair + e + r * 8][line] = value(T{u16(mine.b[r] >> 16 * e)});
        }
    }
    accumulate(all, a, b);
}

// Tensor cores do not look at the low 13 bits.
inline float tf32(u32 bits) { return float_of(bits & 0xffffe000u); }

inline void multiply_tf32(void* const* all) {
    float a[16][8];
    Row b[8];
    for (int lane = 0; lane < WARP; ++lane) {
        const Product& mine = *static_cast<Product*>(all[lane]);
        for (int r = 0; r < 4; ++r) a[lane / 4 + r % 2 * 8][lane % 4 + r / 2 * 4] = tf32(mine.a[r]);
        for (int r = 0; r < 2; ++r) b[lane % 4 + r * 4][lane / 4] = tf32(mine.b[r]);
    }
    accumulate(all, a, b);
}

}  // namespace host

template <class T>
STRIATE_DEVICE void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    host::Product mine{d, a, b};
    host::together(host::multiply_halves<T, 16>, &mine);
}

template <class T>
STRIATE_DEVICE void mma_m16n8k8(float (&d)[4], const u32 (&a)[2], u32 b) {
    host::Product mine{d, a, &b};
    host::together(host::multiply_halves<T, 8>, &mine);
}

STRIATE_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    host::Product mine{d, a, b};
    host::together(host::multiply_tf32, &mine);
}

// Takes place when it is waited for; until then the target is NaN.
template <int BYTES>
STRIATE_DEVICE void cp_async(void* to, const void* from, int size = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    host::check_shared(to, BYTES, "target of cp.async");
    host::check_aligned(from, BYTES, "source of cp.async");
    if (size < 0 || size > BYTES) host::fail("cp.async: size %d of %d bytes", size, BYTES);
    host::copy_later(to, from, BYTES, size);
}
STRIATE_DEVICE void cp_async_commit() { ++host::machine.current->group; }
template <int PENDING>
STRIATE_DEVICE void cp_async_wait() {
    host::finish_copies(PENDING);
}

}  // namespace striate
