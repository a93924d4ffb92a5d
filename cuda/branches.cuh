// What depthwise convolutions side by side need beside the convolutions: sums of their results, bias gradients, and
// channels that none of them takes.
//
// Constants of a translation unit, struct K: T, the type of maps; W, that of bias gradients; vec, elements of a thread.

#pragma once

#include "tile.cuh"

namespace striate {

struct SumMapsArgs {
    const void* parts;
    void* out;
    // Elements of a map, from one map to the next, and maps.
    i64 count, step, maps;
};

// out[i] = the elements i of all maps, added in order and rounded once.
template <class K>
STRIATE_DEVICE void sum_maps(const SumMapsArgs& args) {
    using T = typename K::T;
    using Acc = typename Scalar<T>::Acc;
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * K::vec;
    if (i >= args.count) return;
    Acc sums[K::vec] = {};
    for (i64 map = 0; map < args.maps; ++map) {
        const Pack<T, K::vec> part = load<K::vec>(static_cast<const T*>(args.parts) + map * args.step + i);
#pragma unroll
        for (int v = 0; v < K::vec; ++v) sums[v] += Scalar<T>::widen(part.at[v]);
    }
    Pack<T, K::vec> made;
#pragma unroll
    for (int v = 0; v < K::vec; ++v) made.at[v] = Scalar<T>::narrow(sums[v]);
    store_some(static_cast<T*>(args.out) + i, made, is_aligned(args.out, K::vec * int(sizeof(T))));
}

struct CopyChannelsArgs {
    const void* from;
    void* to;
    // Elements in all, of a sample, and from one sample to the next.
    i64 count, each, step;
};

// The first channels of every sample.
template <class K>
STRIATE_DEVICE void copy_channels(const CopyChannelsArgs& args) {
    using T = typename K::T;
    const i64 i = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * K::vec;
    if (i >= args.count) return;
    const i64 at = i / args.each * args.step + i % args.each;
    const bool packed = is_aligned(args.from, 16) && is_aligned(args.to, 16);
    store_some(static_cast<T*>(args.to) + at, load_some<K::vec>(static_cast<const T*>(args.from) + at, packed), packed);
}

struct SumChannelsArgs {
    const void* maps;
    void* out;
    // Samples, channels of a sample, positions.
    i64 batch, channels, plane;
};

// out[c] = the sum of all maps' planes of channel c, one to a block. There may be fewer blocks than channels.
template <class K>
STRIATE_DEVICE void sum_channels(const SumChannelsArgs& args) {
    using T = typename K::T;
    using Acc = typename Scalar<T>::Acc;
    STRIATE_SHARED(Acc, parts, 32);
    Acc sum = 0;
    for (i64 n = 0; n < args.batch; ++n) {
        const T* const plane = static_cast<const T*>(args.maps) + (n * args.channels + blockIdx.x) * args.plane;
        for (i64 p = threadIdx.x; p < args.plane; p += blockDim.x) sum += Scalar<T>::widen(plane[p]);
    }
    sum = over_warp(sum);
    if (lane_index() == 0) parts[warp_index()] = sum;
    sync_block();
    if (threadIdx.x != 0) return;
    for (int warp = 1; warp < int(blockDim.x) / WARP; ++warp) sum += parts[warp];
    static_cast<typename K::W*>(args.out)[blockIdx.x] = Scalar<typename K::W>::narrow(sum);
}

}  // namespace striate
