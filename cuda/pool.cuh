// Pooling of any rank, stride, dilation and padding: extremes, sums and averages of windows, the positions of extremes,
// and the gradients of all of them. Every result is gathered: a gradient looks up the results whose windows it was in,
// in their order, so that nothing is added atomically and the same problem has the same bits.
//
// Nothing is shared between threads. A thread makes r neighbouring results along one axis (of `vec` channels, where
// those are innermost). What lies at one position of that axis is joined along the other axes first and kept, so that
// neighbouring results, whose windows overlap, read it once; a window of several axes costs the sum of its sizes.
//
// Constants of a translation unit, struct K:
//   T, I        types of numbers and of positions
//   task        0: numbers; 1: positions of extremes; 2: each number goes where its position says, within its window
//   join        0: sums; 1: maxima; 2: minima
//   divide      0: never; 1: sums by one divisor; 2: sums by the taps inside; with `transposed` summands are divided
//   last, vec   whether channels are innermost in memory, and how many of them a thread takes
//   rows        whether r results lie along axis 1, else along axis 2
//   r, c        results of a thread; taps along their axis whose joins are kept at once
//   kept, unit  how many joins that is, and the distance of their sources
//   s, d        distance among them of neighbouring results, and of neighbouring taps
//   w0, w1, w2  sweeps along each axis

#pragma once

#include "tile.cuh"

namespace striate {

// Steps of what varies slowest (planes, or samples with channels innermost) and of a position, and sizes.
struct Planes {
    i64 outer, step, size0, size1, size2;
};

template <int SWEEPS>
struct PoolArgs {
    const void *numbers, *places;
    void* out;
    i64 items, packs, tiles0, tiles1, tiles2;
    Planes from, to;
    i64 divisor;
    // Windows whose padding is the input's where it counts.
    Axis axes[3];
    Sweep sweeps[3][SWEEPS];
};

constexpr int NOWHERE = 0x7fffffff;

// A number and where it was found.
template <class K>
struct Found {
    using Acc = typename Scalar<typename K::T>::Acc;
    Acc value = K::join == 0 ? Acc(0) : Acc(float_of(K::join == 1 ? 0xff800000u : 0x7f800000u));
    int place = NOWHERE;

    // The first of equals, the last NaN, whatever the order of joins.
    STRIATE_DEVICE void take(Found other) {
        if constexpr (K::join == 0) {
            value += other.value;
        } else {
            const bool over = K::join == 1 ? other.value > value : other.value < value;
            const bool nan = other.value != other.value, known = value != value;
            const bool earlier = K::task == 1 && other.value == value && other.place < place;
            const bool later = K::task == 1 && other.place > place;
            if (nan ? !known || later : over || earlier) *this = other;
        }
    }
};

// The sources of one thread: along the axis of its results, across it, and along axis 0.
template <class K, class Args>
struct PoolThread {
    using T = typename K::T;
    using I = typename K::I;
    using Acc = typename Scalar<T>::Acc;
    const Args& args;
    const Sweep &a0, &along, &across;
    // The first source of each, where the thread's channels begin in memory, and whether packs may be moved.
    int base0, base_along, base_across;
    i64 offset;
    bool packed;

    Found<K> made[K::r][K::vec], kept[K::kept][K::vec];
    int share[K::kept];

    static STRIATE_DEVICE int taps(const Axis& axis, i64 o) { return int(most(taps_inside(axis, o), 1)); }

    // Joins, or for task 2 replaces, what is kept of one row of sources across.
    STRIATE_DEVICE void fill(int first, int i0, int other) {
        const Planes& from = args.from;
        const int size = int(K::rows ? from.size1 : from.size2), size2 = int(from.size2);
        const int line = i0 * int(from.size1);
        const int by = K::divide == 2 && K::transposed
                           ? taps(args.axes[0], i0) * taps(args.axes[K::rows ? 2 : 1], other)
                           : int(args.divisor);
#pragma unroll
        for (int i = 0; i < K::kept; ++i) {
            const int at = first + i * K::unit;
            const bool inside = unsigned(at) < unsigned(size);
            if (K::task == 2 && !inside)
#pragma unroll
                for (int v = 0; v < K::vec; ++v) kept[i][v].place = -1;
            if (!inside) continue;
            const int place = K::rows ? (line + at) * size2 + other : (line + other) * size2 + at;
            const i64 element = offset + i64(place) * from.step;
            const Pack<T, K::vec> pack = load_some<K::vec>(static_cast<const T*>(args.numbers) + element, packed);
            Pack<I, K::vec> places{};
            if constexpr (K::task == 2)
                places = load_some<K::vec>(static_cast<const I*>(args.places) + element, packed);
#pragma unroll
            for (int v = 0; v < K::vec; ++v) {
                Found<K> found;
                found.value = Scalar<T>::widen(pack.at[v]);
                if constexpr (K::divide != 0 && K::transposed) found.value /= Acc(K::divide == 2 ? by * share[i] : by);
                found.place = K::task == 2 ? int(places.at[v]) : place;
                if constexpr (K::task == 2)
                    kept[i][v] = found;
                else
                    kept[i][v].take(found);
            }
        }
    }

    // Joins to every result what is kept for its taps, of which there are so many.
    template <class Goes>
    STRIATE_DEVICE void join(int count, Goes goes) {
#pragma unroll
        for (int r = 0; r < K::r; ++r)
#pragma unroll
            for (int v = 0; v < K::vec; ++v) {
                Found<K> sum;
#pragma unroll
                for (int t = 0; t < K::c; ++t)
                    if (t < count && goes(r, kept[r * K::s + t * K::d][v].place)) sum.take(kept[r * K::s + t * K::d][v]);
                made[r][v].take(sum);
            }
    }

    // `own` is the position of the first result and `own_step` the way to the next.
    STRIATE_DEVICE void run(int own, int own_step) {
        for (int c = 0; c < int(along.taps); c += K::c) {
            const int first = base_along + c * int(along.reach_step), count = int(along.taps) - c;
#pragma unroll
            for (int i = 0; i < K::kept; ++i) {
                if constexpr (K::divide == 2 && K::transposed)
                    share[i] = taps(args.axes[K::rows ? 1 : 2], first + i * K::unit);
#pragma unroll
                for (int v = 0; v < K::vec; ++v) kept[i][v] = Found<K>{};
            }
            for (int k0 = 0; k0 < int(a0.taps); ++k0) {
                const int i0 = base0 + k0 * int(a0.reach_step);
                if (unsigned(i0) >= unsigned(args.from.size0)) continue;
                for (int q = 0; q < int(across.taps); ++q) {
                    const int other = base_across + q * int(across.reach_step);
                    if (unsigned(other) >= unsigned(K::rows ? args.from.size2 : args.from.size1)) continue;
                    fill(first, i0, other);
                    if constexpr (K::task == 2)
                        join(count, [&](int r, int place) { return place == own + r * own_step; });
                }
            }
            if constexpr (K::task != 2) join(count, [](int, int) { return true; });
        }
    }
};

template <class K, class Args>
STRIATE_DEVICE void pool(const Args& args) {
    using T = typename K::T;
    using I = typename K::I;
    using Thread = PoolThread<K, Args>;
    const u64 item = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= u64(args.items)) return;
    unsigned rest = unsigned(item);
    // Neighbouring threads write to neighbours in memory.
    const int pack = K::last ? peel(rest, args.packs) * K::vec : 0;
    const Sweep& a2 = args.sweeps[2][peel(rest, K::w2)];
    const int j2 = peel(rest, args.tiles2) * (K::rows ? 1 : K::r);
    const Sweep& a1 = args.sweeps[1][peel(rest, K::w1)];
    const int j1 = peel(rest, args.tiles1) * (K::rows ? K::r : 1);
    const Sweep& a0 = args.sweeps[0][peel(rest, K::w0)];
    const int j0 = peel(rest, args.tiles0);
    if (j0 >= a0.outs || j1 >= a1.outs || j2 >= a2.outs) return;

    constexpr int wide = K::vec * int(sizeof(T)), wide_place = K::vec * int(sizeof(I));
    const bool packed = is_aligned(args.numbers, wide) && is_aligned(args.places, wide_place) &&
                        is_aligned(args.out, K::task == 1 ? wide_place : wide);
    const int base1 = int(a1.src0) + j1 * int(a1.src_step), base2 = int(a2.src0) + j2 * int(a2.src_step);
    Thread thread{args,
                  a0,
                  K::rows ? a1 : a2,
                  K::rows ? a2 : a1,
                  int(a0.src0) + j0 * int(a0.src_step),
                  K::rows ? base1 : base2,
                  K::rows ? base2 : base1,
                  i64(rest) * args.from.outer + pack,
                  packed,
                  {},
                  {},
                  {}};
    const int p0 = int(a0.out0) + j0 * int(a0.out_step), p1 = int(a1.out0) + j1 * int(a1.out_step);
    const int p2 = int(a2.out0) + j2 * int(a2.out_step), size2 = int(args.to.size2);
    const int own = (p0 * int(args.to.size1) + p1) * size2 + p2;
    const int own_step = int(K::rows ? a1.out_step * size2 : a2.out_step);
    thread.run(own, own_step);

    const int left = int(K::rows ? a1.outs - j1 : a2.outs - j2);
#pragma unroll
    for (int r = 0; r < K::r; ++r) {
        if (r >= left) break;
        const i64 element = i64(rest) * args.to.outer + pack + i64(own + r * own_step) * args.to.step;
        if constexpr (K::task == 1) {
            // A window without a tap has the position where its first would be.
            const int at1 = int(first_source(a1, j1 + (K::rows ? r : 0)));
            const int at2 = int(first_source(a2, j2 + (K::rows ? 0 : r)));
            const int none = (int(first_source(a0, j0)) * int(args.from.size1) + at1) * int(args.from.size2) + at2;
            Pack<I, K::vec> places;
#pragma unroll
            for (int v = 0; v < K::vec; ++v)
                places.at[v] = I(thread.made[r][v].place == NOWHERE ? none : thread.made[r][v].place);
            store_some(static_cast<I*>(args.out) + element, places, packed);
        } else {
            using Acc = typename Scalar<T>::Acc;
            Acc by = 1;
            if constexpr (K::divide == 1) by = Acc(args.divisor);
            if constexpr (K::divide == 2 && !K::transposed)
                by = Acc(Thread::taps(args.axes[0], p0) * Thread::taps(args.axes[1], p1 + (K::rows ? r : 0)) *
                         Thread::taps(args.axes[2], p2 + (K::rows ? 0 : r)));
            Pack<T, K::vec> numbers;
#pragma unroll
            for (int v = 0; v < K::vec; ++v) {
                const Acc value = thread.made[r][v].value;
                numbers.at[v] = Scalar<T>::narrow(K::divide != 0 && !K::transposed ? value / by : value);
            }
            store_some(static_cast<T*>(args.out) + element, numbers, packed);
        }
    }
}

struct GatherArgs {
    const void *numbers, *places;
    void* out;
    i64 items, channels, positions, size;
};

// The number of every plane at each of its positions; 0 where the position is none of the plane.
template <class K>
STRIATE_DEVICE void pool_gather(const GatherArgs& args) {
    const u64 item = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= u64(args.items)) return;
    unsigned rest = unsigned(item);
    const int channel = peel(rest, args.channels);
    const i64 plane = rest / unsigned(args.positions), place = i64(static_cast<const typename K::I*>(args.places)[item]);
    const bool inside = place >= 0 && place < args.size;
    const typename K::T* const numbers = static_cast<const typename K::T*>(args.numbers);
    static_cast<typename K::T*>(args.out)[item] =
        inside ? numbers[(plane * args.size + place) * args.channels + channel] : typename K::T{};
}

}  // namespace striate
