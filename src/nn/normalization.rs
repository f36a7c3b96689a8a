//! How pixels are normalised before a network takes them.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::images::Normalize;
use crate::tensor::Tensor;

/// Mean and standard deviation of each channel of pixels in [0, 1].
pub type ChannelStatistics = ([f32; 3], [f32; 3]);

/// Those of the training images of CIFAR-10.
pub const CIFAR10_STATISTICS: ChannelStatistics =
    ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]);

/// Those of ImageNet, by which torchvision's weights were trained.
pub const IMAGENET_STATISTICS: ChannelStatistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// The normalisation of pixels in [0, 1]. On the command line and in configurations: `cifar10`,
/// `imagenet`, `none`, or MEAN/STD, each one number or three, as in `0.5/0.25` or
/// `0.485,0.456,0.406/0.229,0.224,0.225`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Normalization {
    #[default]
    Cifar10,
    ImageNet,
    /// Pixels stay in [0, 1].
    None,
    /// By these statistics. Standard deviations are above 0.
    Custom(ChannelStatistics),
}

impl Normalization {
    /// Mean and standard deviation per channel, or `None` if pixels are not normalised.
    pub fn statistics(self) -> Option<ChannelStatistics> {
        match self {
            Normalization::Cifar10 => Some(CIFAR10_STATISTICS),
            Normalization::ImageNet => Some(IMAGENET_STATISTICS),
            Normalization::None => None,
            Normalization::Custom(statistics) => Some(statistics),
        }
    }

    /// The normalised `images [N, 3, H, W]`, whose pixels are in [0, 1].
    ///
    /// # Errors
    /// `Error::Shape` if there are not three channels, or if a custom statistic cannot be used.
    pub fn apply(self, device: &Device, images: &Tensor) -> Result<Tensor> {
        match self.statistics() {
            Some((mean, std)) => device.run(Normalize {
                x: images,
                mean,
                std,
            }),
            None => Ok(images.clone()),
        }
    }
}

impl fmt::Display for Normalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Normalization::Cifar10 => f.write_str("cifar10"),
            Normalization::ImageNet => f.write_str("imagenet"),
            Normalization::None => f.write_str("none"),
            Normalization::Custom((mean, std)) => {
                let words = [mean, std].map(|x| x.map(|x| x.to_string()).join(","));
                write!(f, "{}/{}", words[0], words[1])
            }
        }
    }
}

impl Serialize for Normalization {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Normalization {
    type Err = Error;

    fn from_str(words: &str) -> Result<Self> {
        match words {
            "cifar10" => return Ok(Normalization::Cifar10),
            "imagenet" => return Ok(Normalization::ImageNet),
            "none" => return Ok(Normalization::None),
            _ => {}
        }
        let found = words.split_once('/').and_then(|(mean, std)| {
            let statistics = (channels(mean)?, channels(std)?);
            let (mean, std) = statistics;
            let is_usable =
                mean.iter().all(|m| (0.0..=1.0).contains(m)) && std.iter().all(|s| *s > 0.0);
            is_usable.then_some(Normalization::Custom(statistics))
        });
        found.ok_or_else(|| {
            Error::usage(format!(
                "the normalisation is '{words}'; expected cifar10, imagenet, none or MEAN/STD of pixels in [0, 1], \
                 each one number or three, such as 0.485,0.456,0.406/0.229,0.224,0.225"
            ))
        })
    }
}

/// Reads one finite number for all channels, or one for each.
fn channels(words: &str) -> Option<[f32; 3]> {
    let number = |word: &str| word.trim().parse().ok().filter(|x: &f32| x.is_finite());
    let numbers: Vec<f32> = words.split(',').map(number).collect::<Option<_>>()?;
    match numbers[..] {
        [all] => Some([all; 3]),
        _ => numbers.try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::accuracy::{DIVISION, U};
    use crate::testing::{Expected, agree, devices, get, pixels, put, random};

    #[test]
    fn names_and_numbers_are_read_as_they_are_printed() {
        for words in [
            "cifar10",
            "imagenet",
            "none",
            "0.5,0.4,0.3/0.25,0.2,0.15",
            "0,0,0/1,1,1",
        ] {
            let read: Normalization = words.parse().unwrap();
            assert_eq!(read.to_string(), words);
        }
        let short: Normalization = "0.5/0.25".parse().unwrap();
        assert_eq!(short, Normalization::Custom(([0.5; 3], [0.25; 3])));
        assert_eq!(Normalization::default(), Normalization::Cifar10);
    }

    #[test]
    fn other_words_are_refused() {
        for words in [
            "",
            "/",
            "cifar",
            "0.5",
            "0.5/0",
            "0.5/-1",
            "0.5/NaN",
            "0.5/inf",
            "123.7/58.4",
            "0.5,0.5/0.2",
            "0.5,0.5,0.5,0.5/0.2",
            "0.5/0.2/0.2",
        ] {
            let error = words.parse::<Normalization>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{words}'")), "{error}");
        }
    }

    #[test]
    fn pixels_are_normalised_by_channel() {
        let shape = [2, 3, 4, 5];
        let x = pixels(&mut random(120), shape);
        for (name, device) in devices::all() {
            let images = &put(&device, &x, &shape);
            let none = Normalization::None.apply(&device, images).expect(name);
            assert_eq!(get(&none), x, "{name}");
            for normalization in [
                Normalization::Cifar10,
                Normalization::ImageNet,
                "0.1,0.2,0.3/0.4,0.5,0.6".parse().unwrap(),
            ] {
                let (mean, std) = normalization.statistics().expect("numbers");
                let mut expected = Expected::default();
                for (i, &x) in x.iter().enumerate() {
                    let (mean, std) = (f64::from(mean[i / 20 % 3]), f64::from(std[i / 20 % 3]));
                    let value = (f64::from(x) - mean) / std;
                    expected.push(value, (DIVISION + 2.0 * U) * value.abs());
                }
                let y = normalization.apply(&device, images).expect(name);
                agree(&format!("{normalization} on {name}"), &y, &shape, &expected);
            }
        }
    }
}
