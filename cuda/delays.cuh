// One time step of a layer of delays: every output is a weighted sum of one remembered sample of each input channel of
// its group.
//
// A warp computes one output for as many samples as K says; its other lanes share out the input channels, whose sums
// then meet in one order. So weights and delays are read once for all samples side by side, and a single sample has
// the whole warp.
//
// Constants of a translation unit, struct K: T, the type of everything but the delays; samples, a power of two.

#pragma once

#include "tile.cuh"

namespace striate {

struct DelayArgs {
    const void *ring, *weight, *delays, *bias;
    void* out;
    // Slots of the ring, its channels and samples; outputs in all and of a group, inputs of a group; the newest slot.
    i64 slots, channels, batch, outputs, spread, inputs, head;
};

template <class K>
STRIATE_DEVICE void delay_step(const DelayArgs& args) {
    using T = typename K::T;
    using Acc = typename Scalar<T>::Acc;
    const i64 blocks = (args.batch + K::samples - 1) / K::samples;
    const i64 warp = i64(blockIdx.x) * (blockDim.x / WARP) + warp_index();
    const i64 output = warp / blocks, sample = warp % blocks * K::samples + lane_index() % K::samples;
    if (output >= args.outputs) return;
    const i64 row = output * args.inputs, first = output / args.spread * args.inputs;
    const bool there = sample < args.batch;
    Acc sum = 0;
    if (there) {
        for (i64 i = lane_index() / K::samples; i < args.inputs; i += WARP / K::samples) {
            // Delays beyond the ring meet its oldest sample, as on the host.
            const i64 delay = static_cast<const int*>(args.delays)[row + i];
            const i64 back = delay < 0 ? 0 : delay < args.slots ? delay : args.slots - 1;
            const i64 slot = args.head - back + (back > args.head ? args.slots : 0);
            const i64 at = (slot * args.channels + first + i) * args.batch + sample;
            sum += Scalar<T>::widen(static_cast<const T*>(args.weight)[row + i]) *
                   Scalar<T>::widen(static_cast<const T*>(args.ring)[at]);
        }
    }
#pragma unroll
    for (int other = WARP / 2; other >= K::samples; other /= 2) sum += shuffle_xor(sum, other);
    if (!there || lane_index() >= K::samples) return;
    if (args.bias != nullptr) sum += Scalar<T>::widen(static_cast<const T*>(args.bias)[output]);
    static_cast<T*>(args.out)[sample * args.outputs + output] = Scalar<T>::narrow(sum);
}

}  // namespace striate
