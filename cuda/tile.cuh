// What the threads of a block do together: barriers, shuffles, shared memory, matrix products of a warp and background
// copies. On the device each is an instruction or two; on the host, where tests run kernels without a GPU, host_tile.hpp
// has the same functions with the same layouts and complains about misuse that a device would forgive.
//
//   STRIATE_SHARED_BYTES(name)       the dynamic shared memory of the block, 16-byte aligned bytes
//   STRIATE_SHARED(type, name, n)    n elements of static shared memory; T must not need a constructor
//   sync_block() sync_warp()         every thread of the block, every lane of the warp
//   shuffle_xor/down/idx(x, n)       x of another lane; all 32 lanes take part. Types of 4 or 8 bytes
//   ballot(flag)                     bit i is lane i's flag
//   ldmatrix<count, trans>(r, row)   `count` 8x8 matrices of 16-bit elements from shared memory; lane 8i+j names row j
//                                    of matrix i (16-byte aligned), r[i] receives two elements of matrix i
//   mma_m16n8k16<T>(d, a, b)         d += a b with 16-bit elements and float sums; fragments as in the PTX manual
//   mma_m16n8k8<T>(d, a, b)          the same of half the depth
//   mma_m16n8k8_tf32(d, a, b)        the same of tf32 numbers, made by to_tf32
//   cp_async<bytes>(to, from, size)  4, 8 or 16 bytes from global to shared memory, of which all behind `size` are zero
//   cp_async_commit()                closes a group of copies of this thread
//   cp_async_wait<n>()               until at most n groups of this thread are under way; then sync_block() shows them
//                                    to the others
//
// sm_75 copies at once instead and multiplies float16 in two steps. It has no tensor cores for bfloat16, whose products
// it makes from shuffles, right and slow, nor for tf32: asking for that does not compile there.

#pragma once

#include "scalar.cuh"

#ifdef __CUDACC__
#define STRIATE_DEVICE __device__ __forceinline__
#else
#define STRIATE_DEVICE inline
#endif

namespace striate {

constexpr int WARP = 32;

// Takes the remainder by a number of choices off the number of a block or a thread.
STRIATE_FN int peel(unsigned& rest, i64 choices) {
    const unsigned digit = rest % unsigned(choices);
    rest /= unsigned(choices);
    return int(digit);
}

// What mma_m16n8k8 does, where no tensor core does it.
template <class T>
STRIATE_DEVICE void product_by_shuffles(float (&d)[4], const u32 (&a)[2], u32 b);

}  // namespace striate

#ifndef __CUDACC__
#include "host_tile.hpp"
#else

#define STRIATE_ARCH __CUDA_ARCH__
#define STRIATE_SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#define STRIATE_SHARED(type, name, n) __shared__ __align__(16) type name[n]

namespace striate {

STRIATE_DEVICE int lane_index() { return int(threadIdx.x) % WARP; }
STRIATE_DEVICE int warp_index() { return int(threadIdx.x) / WARP; }

STRIATE_DEVICE void sync_block() { __syncthreads(); }
STRIATE_DEVICE void sync_warp() { __syncwarp(); }

template <class T>
STRIATE_DEVICE T shuffle_xor(T x, int mask) {
    return __shfl_xor_sync(~0u, x, mask);
}
template <class T>
STRIATE_DEVICE T shuffle_down(T x, int delta) {
    return __shfl_down_sync(~0u, x, delta);
}
template <class T>
STRIATE_DEVICE T shuffle_idx(T x, int lane) {
    return __shfl_sync(~0u, x, lane);
}
STRIATE_DEVICE u32 ballot(bool flag) { return __ballot_sync(~0u, flag); }

STRIATE_DEVICE u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

template <int COUNT, bool TRANS = false>
STRIATE_DEVICE void ldmatrix(u32* r, const void* row) {
    static_assert(COUNT == 1 || COUNT == 2 || COUNT == 4, "ldmatrix reads 1, 2 or 4 matrices");
    const u32 at = shared_address(row);
    if constexpr (COUNT == 1 && !TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
    else if constexpr (COUNT == 1)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                     : "=r"(r[0])
                     : "r"(at)
                     : "memory");
    else if constexpr (COUNT == 2 && !TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(at)
                     : "memory");
    else if constexpr (COUNT == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(at)
                     : "memory");
    else if constexpr (!TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
}

template <class T>
STRIATE_DEVICE void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]);
template <class T>
STRIATE_DEVICE void mma_m16n8k8(float (&d)[4], const u32 (&a)[2], u32 b);

template <>
STRIATE_DEVICE void mma_m16n8k8<Half>(float (&d)[4], const u32 (&a)[2], u32 b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}

template <>
STRIATE_DEVICE void mma_m16n8k16<Half>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if STRIATE_ARCH >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int half = 0; half < 2; ++half) mma_m16n8k8<Half>(d, {a[2 * half], a[2 * half + 1]}, b[half]);
#endif
}

#if STRIATE_ARCH >= 800

template <>
STRIATE_DEVICE void mma_m16n8k8<Bfloat>(float (&d)[4], const u32 (&a)[2], u32 b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}

template <>
STRIATE_DEVICE void mma_m16n8k16<Bfloat>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Rounds to the 10 bits of fraction that tensor cores look at, ties away from zero.
STRIATE_DEVICE u32 to_tf32(float x) {
    u32 y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

STRIATE_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// What is read once and shared by no other block stays out of L1 where the instruction allows it, at 16 bytes.
template <int BYTES>
STRIATE_DEVICE void cp_async(void* to, const void* from, int size = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :
                     : "r"(shared_address(to)), "l"(from), "r"(size)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                     :
                     : "r"(shared_address(to)), "l"(from), "n"(BYTES), "r"(size)
                     : "memory");
}
STRIATE_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
STRIATE_DEVICE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#else

template <>
STRIATE_DEVICE void mma_m16n8k8<Bfloat>(float (&d)[4], const u32 (&a)[2], u32 b) {
    product_by_shuffles<Bfloat>(d, a, b);
}
template <>
STRIATE_DEVICE void mma_m16n8k16<Bfloat>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    for (int half = 0; half < 2; ++half) product_by_shuffles<Bfloat>(d, {a[2 * half], a[2 * half + 1]}, b[half]);
}

template <int BYTES>
STRIATE_DEVICE void cp_async(void* to, const void* from, int size = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    if (size == BYTES) {
        *static_cast<Pack<u32, BYTES / 4>*>(to) = *static_cast<const Pack<u32, BYTES / 4>*>(from);
        return;
    }
    for (int i = 0; i < BYTES; ++i)
        static_cast<unsigned char*>(to)[i] = i < size ? static_cast<const unsigned char*>(from)[i] : 0;
}
STRIATE_DEVICE void cp_async_commit() {}
template <int PENDING>
STRIATE_DEVICE void cp_async_wait() {}

#endif

}  // namespace striate

#endif

namespace striate {

template <class T>
STRIATE_DEVICE void product_by_shuffles(float (&d)[4], const u32 (&a)[2], u32 b) {
    const int line = lane_index() / 4 * 4, column = lane_index() % 4 * 8;
    // Word k of a line, or of a column, is with lane k of its four.
#pragma unroll 1
    for (int k = 0; k < 4; ++k) {
        const u32 left[2] = {shuffle_idx(a[0], line + k), shuffle_idx(a[1], line + k)};
        const u32 right[2] = {shuffle_idx(b, column + k), shuffle_idx(b, column + 4 + k)};
        for (int i = 0; i < 4; ++i)
            for (int e = 0; e < 32; e += 16)
                d[i] += Scalar<T>::widen(T{u16(left[i / 2] >> e)}) * Scalar<T>::widen(T{u16(right[i % 2] >> e)});
    }
}

// The sum over all lanes of a warp, the same bits in each.
template <class T>
STRIATE_DEVICE T over_warp(T x) {
    for (int other = WARP / 2; other > 0; other /= 2) x += shuffle_xor(x, other);
    return x;
}

}  // namespace striate
