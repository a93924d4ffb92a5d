//! What no tensor tells about a convolution: the last argument of the raw operators, a piece of a problem line.
//!
//! One string instead of lists, because torch spends half a microsecond on every list it hands over.

/// Most axes of a convolution.
const MOST: usize = 3;

/// One integer per axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ints {
    len: usize,
    values: [i64; MOST],
}

impl Ints {
    fn read(name: &str, parts: &str, number: impl Fn(&str) -> Option<i64>) -> Result<Ints, String> {
        let mut made = Ints::default();
        for part in parts.split('x') {
            let value = number(part).ok_or_else(|| format!("{name}: expected integers, got {parts:?}"))?;
            if let Some(place) = made.values.get_mut(made.len) {
                *place = value;
            }
            made.len += 1;
        }
        Ok(made)
    }

    /// The values; longer lists than there are axes keep their length but lose their tail.
    pub fn values(&self) -> &[i64] {
        &self.values[..self.len.min(MOST)]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// A configuration such as `s1x1 d1x1 p3+3x3+3 g96`; words stand in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `s`: stride per axis.
    pub stride: Ints,
    /// `d`: dilation per axis.
    pub dilation: Ints,
    /// `p`: padding before and after, per axis.
    pub padding: (Ints, Ints),
    /// `g`: number of channel groups; every input channel is one if it is not said.
    pub groups: Option<i64>,
    /// `k`: kernel size of a weight gradient.
    pub kernel: Option<Ints>,
    /// `o`: output padding of a transposed convolution.
    pub output_padding: Option<Ints>,
    /// `wide`: a weight gradient is produced in the accumulator's type.
    pub wide: bool,
    /// `tf32`: products of 32-bit floats may round them to ten bits, on devices that can.
    pub tf32: bool,
}

impl Config {
    /// Reads the argument.
    pub fn read(text: &str) -> Result<Config, String> {
        let mut made = Config::default();
        let number = |part: &str| part.parse().ok();
        for word in text.split_ascii_whitespace() {
            let (tag, rest) = word.split_at_checked(1).unwrap_or_default();
            match tag {
                "s" => made.stride = Ints::read("stride", rest, number)?,
                "d" => made.dilation = Ints::read("dilation", rest, number)?,
                "p" => {
                    let side = |high: bool| {
                        let pick = move |(low, above): (&str, &str)| if high { above } else { low }.parse().ok();
                        Ints::read("padding", rest, move |part| part.split_once('+').and_then(pick))
                    };
                    made.padding = (side(false)?, side(true)?);
                }
                "g" => {
                    made.groups =
                        Some(number(rest).ok_or_else(|| format!("groups: expected an integer, got {rest:?}"))?)
                }
                "k" => made.kernel = Some(Ints::read("kernel_size", rest, number)?),
                "o" => made.output_padding = Some(Ints::read("output_padding", rest, number)?),
                "w" if rest == "ide" => made.wide = true,
                "t" if rest == "f32" => made.tf32 = true,
                _ => return Err(format!("config: expected words such as s1x1 d1x1 p0+0x0+0 g1, got {word:?}")),
            }
        }
        Ok(made)
    }
}
