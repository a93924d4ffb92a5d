//! Weights and bias as accumulators, in the order the loops read them.

use striate_core::pool::{Part, for_each_part};
use striate_core::{Accumulator, Pool, Scalar, Tensor, with_scalar};

/// Channels in the widest vector.
const MOST_LANES: usize = 16;

/// The packed order of a weight. Its channels are rows of taps, one for each pair of an output and an input channel.
#[derive(Default)]
pub struct Weights {
    /// Kernel position of every packed tap.
    pub order: Vec<usize>,
    /// Where each phase's taps start in `order`; one more entry than phases.
    pub starts: Vec<usize>,
    /// Channels of the weight.
    pub channels: usize,
    /// Kernel positions of a channel.
    pub taps: usize,
    /// Channels that are neighbours in a packed tap.
    pub width: usize,
    /// Channels of the weight that one produced channel sums over.
    pub summed: usize,
    /// Input channels per group where the outputs are summed over, as for an input gradient: packed rows are then in
    /// the order (group, input, output) and not, as stored, (group, output, input).
    pub turned: Option<usize>,
    /// Items packed at a time.
    pub each: usize,
    /// Where they start; see [`Weights::cut`].
    pub bounds: Vec<usize>,
}

impl Weights {
    /// Numbers in the packed weights of one item.
    pub fn item(&self) -> usize {
        self.order.len() * self.width
    }

    /// Numbers in all packed weights.
    pub fn len(&self) -> usize {
        self.channels.div_ceil(self.width) * self.item()
    }

    /// The packed taps of one phase of one item.
    pub fn of<'a, A>(&self, packed: &'a [A], item: usize, summand: usize, phase: usize) -> &'a [A] {
        let base = (item * self.summed + summand) * self.item();
        &packed[base + self.starts[phase] * self.width..base + self.starts[phase + 1] * self.width]
    }

    /// Cuts the items into parts to be packed: a few together, so that small weights are packed by the caller alone.
    pub fn cut(mut self) -> Weights {
        let items = self.channels.div_ceil(self.width);
        self.each = (16_384 / self.item().max(1)).clamp(1, items.max(1));
        self.bounds = (0..=items.div_ceil(self.each)).map(|i| (i * self.each).min(items) * self.item()).collect();
        self
    }

    /// Packs a weight tensor.
    pub fn pack<A: Accumulator>(&self, weight: Tensor<'_>, packed: &mut [A], pool: &dyn Pool) {
        with_scalar!(weight.dtype(), W => {
            let data = weight.typed::<W>().data;
            for_each_part(pool, (packed, &self.bounds), &mut [], &|part: Part<'_, A, u8>| {
                for (offset, item) in part.out.chunks_mut(self.item().max(1)).enumerate() {
                    self.pack_item(data, part.index * self.each + offset, item);
                }
            });
        });
    }

    /// Where a packed row is stored.
    fn stored(&self, packed: usize) -> usize {
        let Some(c_in) = self.turned else { return packed };
        let (item, summand) = (packed / self.summed, packed % self.summed);
        (item / c_in * self.summed + summand) * c_in + item % c_in
    }

    fn pack_item<W: Scalar, A: Accumulator>(&self, data: &[W], item: usize, packed: &mut [A]) {
        let first = item * self.width;
        let real = self.width.min(self.channels - first);
        let mut lanes: [&[W]; MOST_LANES] = [&[]; MOST_LANES];
        for (channel, lane) in (first..first + real).zip(&mut lanes) {
            *lane = &data[self.stored(channel) * self.taps..][..self.taps];
        }
        for (slots, &k) in packed.chunks_exact_mut(self.width).zip(&self.order) {
            let (slots, past) = slots.split_at_mut(real);
            for (slot, taps) in slots.iter_mut().zip(&lanes) {
                *slot = A::from_f64(taps[k].widen().to_f64());
            }
            // Lanes past the last channel are computed and dropped; they must not be slow on the way.
            past.fill(A::default());
        }
    }
}

/// Writes the bias, or zeros, and zeros after it.
pub fn bias<A: Accumulator>(bias: Option<Tensor<'_>>, starts: &mut [A]) {
    starts.fill(A::default());
    if let Some(bias) = bias {
        with_scalar!(bias.dtype(), W => {
            for (slot, value) in starts.iter_mut().zip(bias.typed::<W>().data) {
                *slot = A::from_f64(value.widen().to_f64());
            }
        });
    }
}
