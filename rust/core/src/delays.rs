//! What one time step of a layer of delays asks: every output is a weighted sum of one remembered sample of each input
//! channel of its group.
//!
//! `delay_step` reads a ring of samples `[K, C, N]`, weights `[O, I]`, delays `[O, I]` of i32 below K and perhaps a
//! bias `[O]`, and writes `[N, O]`. The setting `head` is the slot of the newest sample, from which delays count back.

use crate::kernel::Why;
use crate::operation::Request;
use crate::problem::DType;

/// A checked request.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// Slots of the ring.
    pub slots: usize,
    /// Input channels.
    pub channels: usize,
    /// Samples side by side.
    pub batch: usize,
    /// Outputs.
    pub outputs: usize,
    /// Input channels of a group.
    pub inputs: usize,
    /// Slot of the newest sample.
    pub head: usize,
    /// Type of everything but the delays.
    pub dtype: DType,
}

impl Delays {
    /// Of a request; every tensor is contiguous.
    pub fn of(request: &Request<'_>) -> Result<Delays, Why> {
        let (ring, weight, delays) = (request.operand(0)?, request.operand(1)?, request.operand(2)?);
        let (&[slots, channels, batch], &[outputs, inputs]) = (ring.sizes(), weight.sizes()) else {
            return Err(format!("expected a ring [K, C, N] and weights [O, I], got {ring} and {weight}"));
        };
        let head = usize::try_from(request.settings.integer("head")?).ok().filter(|&head| head < slots);
        let head = head.ok_or_else(|| format!("head: expected a slot below {slots}"))?;
        let result = request.result(0)?;
        let bias = request.operands.get(3).and_then(Option::as_ref);
        let groups = channels.checked_div(inputs).unwrap_or(0);
        let fits = groups * inputs == channels
            && groups > 0
            && outputs % groups == 0
            && delays.sizes() == weight.sizes()
            && result.sizes() == [batch, outputs]
            && bias.is_none_or(|bias| bias.sizes() == [outputs]);
        if !fits {
            return Err(format!("{ring}, {weight}, {delays} and {result} do not fit each other"));
        }
        let dtype = ring.dtype;
        let same = [Some(ring), Some(weight), bias, Some(result)].into_iter().flatten().all(|t| t.dtype == dtype);
        let all = request.operands.iter().flatten().chain(request.results);
        let dense = all.into_iter().all(|tensor| tensor.is_contiguous());
        match same && dense && delays.dtype == DType::I32 && [DType::F32, DType::F64].contains(&dtype) {
            true => Ok(Delays { slots, channels, batch, outputs, inputs, head, dtype }),
            false => Err("expected dense tensors of f32 or of f64, and delays of i32".into()),
        }
    }

    /// Where the samples lie that meet input `input` of output `output` after `delay` steps; delays beyond the ring meet
    /// its oldest sample.
    #[inline(always)]
    pub fn at(&self, output: usize, input: usize, delay: i32) -> usize {
        let back = (delay.max(0) as usize).min(self.slots - 1);
        let slot = if back <= self.head { self.head - back } else { self.head + self.slots - back };
        let group = output / (self.outputs / (self.channels / self.inputs));
        (slot * self.channels + group * self.inputs + input) * self.batch
    }
}
