// The causal convolution of sequences, y[t] = act(bias + sum_w weight[w] x[t - (W - 1) + w]) in every channel, and its
// steps after a state. Nothing is shared between threads: each produces some neighbouring positions of one or several
// channels from registers, and reads what came before them once more than it must, from the caches.
//
// What lies before a sequence comes from its state, or is zero. Sequences are the samples, or `marks` says where they
// begin in the one sample, or to which one every position belongs (none, if the number is negative: 0 in the result).
//
// Constants of a translation unit, struct K:
//   T, W, I   types of x, of weights and of marks
//   width     taps, at most 17
//   steps     positions of a thread
//   lanes     channels of a thread, 1 if packs lie along the positions; then steps is the size of a pack
//   marks     0: none; 1: starts of sequences; 2: numbers of sequences
//   silu      whether act(z) is z / (1 + exp(-z))

#pragma once

#include "tile.cuh"

namespace striate {

template <bool silu, class Acc>
STRIATE_FN Acc activated(Acc z) {
    return silu ? z / (Acc(1) + exponential(-z)) : z;
}

// Steps of sample, channel and position.
struct Steps {
    i64 sample, channel, position;
};

struct CausalArgs {
    const void *x, *weight, *bias, *states, *marks;
    void* out;
    i64 batch, channels, length, sequences;
    // Parts of a line of positions, and of the channels, that threads take.
    i64 chunks, groups;
    Steps from, to, weights, past, mark;
    i64 bias_step;
};

// A thread's place: positions from `first`, channels from `channel`.
struct CausalPlace {
    i64 sample, channel, first;
};

template <class K>
STRIATE_DEVICE CausalPlace causal_place(const CausalArgs& args, i64 item) {
    CausalPlace place;
    // Neighbouring threads take neighbours in memory.
    const i64 inner = K::lanes == 1 ? args.chunks : args.groups, outer = K::lanes == 1 ? args.groups : args.chunks;
    const i64 fast = item % inner, slow = item / inner % outer;
    place.sample = item / inner / outer;
    place.channel = (K::lanes == 1 ? slow : fast) * K::lanes;
    place.first = (K::lanes == 1 ? fast : slow) * K::steps;
    return place;
}

// Whether packs of `count` may be moved: neighbours in memory, and every step a multiple of the pack.
template <int count, class T>
STRIATE_DEVICE bool packs(const void* address, i64 neighbour, i64 a, i64 b) {
    return neighbour == 1 && ((reinterpret_cast<u64>(address) / sizeof(T) | u64(a) | u64(b)) & u64(count - 1)) == 0;
}

// Element `at` of what came before sequence `row`, the last of which has the number -1.
template <class K>
STRIATE_DEVICE typename Scalar<typename K::T>::Acc before(const CausalArgs& args, i64 row, i64 channel, i64 at) {
    using T = typename K::T;
    if (args.states == nullptr || at < 1 - K::width) return 0;
    const i64 step = row * args.past.sample + channel * args.past.channel + (K::width - 1 + at) * args.past.position;
    return Scalar<T>::widen(static_cast<const T*>(args.states)[step]);
}

// The positions `kept` of the place's channels, of which the first lies `kept - steps` before its own.
template <class K, int kept>
STRIATE_DEVICE void causal_fill(typename Scalar<typename K::T>::Acc (&seen)[kept][K::lanes], const CausalArgs& args,
                                const CausalPlace& place) {
    using T = typename K::T;
    constexpr bool along = K::lanes == 1;
    constexpr int count = along ? K::steps : K::lanes;
    const Steps& step = args.from;
    const T* const x = static_cast<const T*>(args.x) + place.sample * step.sample + place.channel * step.channel;
    const bool packed = along ? packs<count, T>(args.x, step.position, step.sample, step.channel)
                              : packs<count, T>(args.x, step.channel, step.sample, step.position);
    const i64 begin = place.first - (kept - K::steps);
#pragma unroll
    for (int p = 0; p < kept; p += along ? count : 1) {
        const i64 at = begin + p;
        const bool inside = along ? at >= 0 && at + count <= args.length
                                  : at >= 0 && at < args.length && place.channel + count <= args.channels;
        if (packed && inside) {
            const Pack<T, count> pack = load<count>(x + at * step.position);
#pragma unroll
            for (int i = 0; i < count; ++i) seen[along ? p + i : p][along ? 0 : i] = Scalar<T>::widen(pack.at[i]);
            continue;
        }
#pragma unroll
        for (int i = 0; i < count; ++i) {
            const i64 here = along ? at + i : at, lane = along ? 0 : i;
            typename Scalar<T>::Acc value = 0;
            if (place.channel + lane >= args.channels || here >= args.length)
                value = 0;
            else if (here >= 0)
                value = Scalar<T>::widen(x[here * step.position + lane * step.channel]);
            else if (K::marks == 0)
                value = before<K>(args, place.sample, place.channel + lane, here);
            seen[along ? p + i : p][lane] = value;
        }
    }
}

// The sequence of a position: the last whose start is not behind it.
template <class I>
STRIATE_DEVICE i64 sequence_of(const I* starts, i64 step, i64 sequences, i64 at) {
    i64 low = 0, high = sequences;
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        if (i64(starts[middle * step]) <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

template <class K>
STRIATE_DEVICE void causal_forward(const CausalArgs& args) {
    using T = typename K::T;
    using W = typename K::W;
    using Acc = typename Scalar<T>::Acc;
    constexpr int history = K::width - 1;
    constexpr int behind = K::lanes == 1 ? (history + K::steps - 1) / K::steps * K::steps : history;
    const i64 item = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= args.batch * args.groups * args.chunks) return;
    const CausalPlace place = causal_place<K>(args, item);
    Acc seen[behind + K::steps][K::lanes];
    causal_fill<K>(seen, args, place);

    const typename K::I* const marks = static_cast<const typename K::I*>(args.marks);
    Acc made[K::steps][K::lanes];
#pragma unroll
    for (int lane = 0; lane < K::lanes; ++lane) {
        const i64 channel = place.channel + lane;
        const bool real = channel < args.channels;
        Acc weight[K::width];
#pragma unroll
        for (int w = 0; w < K::width; ++w)
            weight[w] = real ? Scalar<W>::widen(static_cast<const W*>(
                                   args.weight)[channel * args.weights.channel + w * args.weights.position])
                             : Acc(0);
        const Acc start = real && args.bias ? Scalar<W>::widen(static_cast<const W*>(args.bias)[channel * args.bias_step])
                                            : Acc(0);
#pragma unroll
        for (int t = 0; t < K::steps; ++t) {
            const i64 at = place.first + t;
            i64 row = 0, begin = 0, number = 0;
            if (K::marks == 1 && at < args.length) {
                row = sequence_of(marks, args.mark.position, args.sequences, at);
                begin = i64(marks[row * args.mark.position]);
            }
            if (K::marks == 2 && at < args.length)
                number = i64(marks[place.sample * args.mark.sample + at * args.mark.position]);
            Acc sum = start;
#pragma unroll
            for (int w = 0; w < K::width; ++w) {
                Acc value = seen[behind + t - history + w][lane];
                const i64 there = at - history + w;
                if (K::marks == 1 && there < begin)
                    value = real ? before<K>(args, row, channel, there - begin) : Acc(0);
                if (K::marks == 2 && at < args.length && w < history)
                    if (there < 0 ||
                        i64(marks[place.sample * args.mark.sample + there * args.mark.position]) != number)
                        value = 0;
                sum += weight[w] * value;
            }
            made[t][lane] = number < 0 ? Acc(0) : activated<K::silu != 0>(sum);
        }
    }

    constexpr bool along = K::lanes == 1;
    constexpr int count = along ? K::steps : K::lanes;
    const Steps& step = args.to;
    T* const out = static_cast<T*>(args.out) + place.sample * step.sample + place.channel * step.channel;
    const bool packed = along ? packs<count, T>(args.out, step.position, step.sample, step.channel)
                              : packs<count, T>(args.out, step.channel, step.sample, step.position);
    const bool whole = along ? place.first + count <= args.length : place.channel + count <= args.channels;
#pragma unroll
    for (int p = 0; p < (along ? 1 : K::steps); ++p) {
        if (place.first + p >= args.length) break;
        Pack<T, count> pack;
#pragma unroll
        for (int i = 0; i < count; ++i) pack.at[i] = Scalar<T>::narrow(made[along ? i : p][along ? 0 : i]);
        if (packed && whole) {
            store(out + (place.first + p) * step.position, pack);
            continue;
        }
#pragma unroll
        for (int i = 0; i < count; ++i) {
            const i64 at = along ? place.first + i : place.first + p, lane = along ? 0 : i;
            if (at < args.length && place.channel + lane < args.channels)
                out[at * step.position + lane * step.channel] = pack.at[i];
        }
    }
}

struct UpdateArgs {
    const void *x, *weight, *bias, *at, *rows;
    void *out, *state;
    i64 batch, channels, length, size;
    Steps from, to, weights, memory;
    i64 bias_step, at_step, rows_step;
};

// A thread for each channel of each sample: it alone reads and writes that line of the state. K::marks: 0: the state is
// shifted; 1: it is a ring, written from `at` on. K::I is the type of `at`, K::R that of `rows`.
template <class K>
STRIATE_DEVICE void causal_update(const UpdateArgs& args) {
    using T = typename K::T;
    using W = typename K::W;
    using Acc = typename Scalar<T>::Acc;
    const i64 item = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= args.batch * args.channels) return;
    const i64 channel = item % args.channels, sample = item / args.channels, size = args.size;
    const i64 row = args.rows ? i64(static_cast<const typename K::R*>(args.rows)[sample * args.rows_step]) : sample;
    const T* const x = static_cast<const T*>(args.x) + sample * args.from.sample + channel * args.from.channel;
    T* const out = static_cast<T*>(args.out) + sample * args.to.sample + channel * args.to.channel;
    if (row < 0) {
        for (i64 t = 0; t < args.length; ++t) out[t * args.to.position] = T{};
        return;
    }
    T* const state = static_cast<T*>(args.state) + row * args.memory.sample + channel * args.memory.channel;
    const i64 first = K::marks == 1 && size > 0
                          ? i64(static_cast<const typename K::I*>(args.at)[sample * args.at_step]) % size
                          : 0;
    const Acc start = args.bias ? Scalar<W>::widen(static_cast<const W*>(args.bias)[channel * args.bias_step]) : Acc(0);
    for (i64 t = 0; t < args.length; ++t) {
        Acc sum = start;
#pragma unroll
        for (int w = 0; w < K::width; ++w) {
            const i64 back = K::width - 1 - w;
            T value;
            if (back <= t)
                value = x[(t - back) * args.from.position];
            else if (K::marks == 1)
                value = state[((first + t - back) % size + size) % size * args.memory.position];
            else
                value = state[(size + t - back) * args.memory.position];
            const W weight = static_cast<const W*>(args.weight)[channel * args.weights.channel + w * args.weights.position];
            sum += Scalar<W>::widen(weight) * Scalar<T>::widen(value);
        }
        out[t * args.to.position] = Scalar<T>::narrow(activated<K::silu != 0>(sum));
    }
    if (K::marks == 1) {
        for (i64 t = 0; t < args.length && size > 0; ++t)
            state[(first + t) % size * args.memory.position] = x[t * args.from.position];
        return;
    }
    for (i64 s = 0; s < size; ++s)
        state[s * args.memory.position] = s + args.length >= size ? x[(s + args.length - size) * args.from.position]
                                                                  : state[(s + args.length) * args.memory.position];
}

}  // namespace striate
