// Mean and variance of what a kernel produces, found while results are in registers: what a BatchNorm wants to know.
//
// A block reduces what it writes of a channel in two steps, first to the mean, then to the sum of squared deviations
// from that mean, so that nothing cancels. What it leaves in workspace, `merge_moments` puts together in one order:
// with n, m and q the count, mean and squared deviations of two parts (Chan, Golub and LeVeque: Updating Formulae and
// a Pairwise Algorithm for Computing Sample Variances, 1982),
//
//   n = n1 + n2      d = m2 - m1      m = m1 + d n2 / n      q = q1 + q2 + d^2 n1 n2 / n
//
// Numbers are those that memory holds, after rounding. Constants of a translation unit, struct K: Acc, type of moments.

#pragma once

#include "tile.cuh"

namespace striate {

// The arguments of a kernel that leaves moments behind.
template <class Base>
struct WithMoments : Base {
    static constexpr bool moments = true;
    // [channel][slot] of Moments, one slot for each block that produces a part of a channel.
    void* parts;
    i64 slots;
};

template <class Acc>
struct Moments {
    Acc count, mean, squares;
};

// The sum over each `group` neighbouring threads, the same bits in all of them: a power of two up to a warp, or whole
// warps. `parts` holds a number for every warp.
template <class Acc>
STRIATE_DEVICE Acc over_group(Acc x, int group, Acc* parts) {
    for (int other = (group < WARP ? group : WARP) / 2; other > 0; other /= 2) x += shuffle_xor(x, other);
    if (group <= WARP) return x;
    const int warps = group / WARP, first = warp_index() / warps * warps;
    sync_block();
    if (lane_index() == 0) parts[warp_index()] = x;
    sync_block();
    x = parts[first];
    for (int warp = 1; warp < warps; ++warp) x += parts[first + warp];
    return x;
}

// Writes the moments of `count` numbers of each group of threads. `each(visit)` calls visit with those of a thread;
// every thread of the block takes part, and those with none to write have no `to`.
template <class Acc, class Each>
STRIATE_DEVICE void write_moments(Moments<Acc>* to, int count, int group, const Each& each) {
    STRIATE_SHARED(Acc, parts, 32);
    Acc sum = 0, squares = 0;
    each([&](Acc x) { sum += x; });
    const Acc mean = over_group(sum, group, parts) / Acc(count);
    each([&](Acc x) { squares += (x - mean) * (x - mean); });
    squares = over_group(squares, group, parts);
    if (to != nullptr && int(threadIdx.x) % group == 0) *to = {Acc(count), mean, squares};
}

// A part without numbers changes nothing.
template <class Acc>
STRIATE_DEVICE void merge(Moments<Acc>& a, const Moments<Acc>& b) {
    if (b.count == 0) return;
    if (a.count == 0) {
        a = b;
        return;
    }
    const Acc count = a.count + b.count, apart = b.mean - a.mean, share = b.count / count;
    a = {count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
}

template <int TENSORS>
struct MergeArgs {
    // [2][tensor][channel]: means, then biased variances.
    void* out;
    i64 channels;
    // As WithMoments has them.
    const void* from[TENSORS];
    i64 slots[TENSORS];
};

// A warp puts together the moments of one channel of one tensor, every lane some of them.
template <class K, int TENSORS>
STRIATE_DEVICE void merge_moments(const MergeArgs<TENSORS>& args) {
    using Acc = typename K::Acc;
    const i64 item = i64(blockIdx.x) * (blockDim.x / WARP) + warp_index(), all = TENSORS * args.channels;
    if (item >= all) return;
    const int tensor = int(item / args.channels);
    const i64 slots = args.slots[tensor];
    const Moments<Acc>* const parts =
        static_cast<const Moments<Acc>*>(args.from[tensor]) + item % args.channels * slots;
    Moments<Acc> made = {};
    for (i64 slot = lane_index(); slot < slots; slot += WARP) merge(made, parts[slot]);
    for (int other = WARP / 2; other > 0; other /= 2)
        merge(made, {shuffle_down(made.count, other), shuffle_down(made.mean, other),
                     shuffle_down(made.squares, other)});
    if (lane_index() != 0) return;
    Acc* const out = static_cast<Acc*>(args.out) + item;
    out[0] = made.mean;
    out[all] = made.squares / made.count;
}

}  // namespace striate
