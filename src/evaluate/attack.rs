//! White-box attacks on a classifier: FGSM (Goodfellow, Shlens and Szegedy 2015) and PGD (Madry et
//! al. 2018). They stay within a ball of radius eps in the maximum norm around each image.

use crate::autograd::{Tape, Var};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::Normalization;
use crate::objectives::Protocol;
use crate::ops::attack::AttackStep;
use crate::ops::elementwise::Add;
use crate::ops::uniform::{NoiseKey, Uniform};
use crate::tensor::Tensor;

/// The method of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One step of size eps along the sign of the gradient.
    Fgsm,
    /// Steps along the sign of the gradient from a random point of the ball. Each step is followed
    /// by a projection onto the ball.
    Pgd { iterations: u32 },
}

/// The units of eps and of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Pixels in [0, 1], before normalisation.
    Pixels,
    /// Pixels normalised by the mean and standard deviation of CIFAR-10, in the range of the
    /// released code of the reproduced paper.
    Normalized,
}

impl Units {
    /// The units of `protocol`.
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Sound => Units::Pixels,
            Protocol::Paper => Units::Normalized,
        }
    }

    /// Fails if a network whose images have this normalisation cannot take images in these units.
    ///
    /// # Errors
    /// `Error::Usage` if the units are [`Units::Normalized`] and the network has another
    /// normalisation.
    pub fn check(self, normalization: Normalization) -> Result<()> {
        match self {
            Units::Normalized if normalization != Normalization::Cifar10 => {
                Err(Error::usage(format!(
                    "the network takes images of the normalisation {normalization}, and the attack has units normalised \
                     by CIFAR-10's statistics; use the attack in units of pixels, protocol sound"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Lowest and highest value of a pixel.
    pub fn range(self) -> [f32; 2] {
        match self {
            Units::Pixels => [0.0, 1.0],
            Units::Normalized => [-2.4291, 2.7537],
        }
    }
}

/// An attack of one strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttackSettings {
    pub method: Method,
    pub units: Units,
    /// The radius of the ball.
    pub eps: f32,
    /// The size of one step.
    pub alpha: f32,
}

impl AttackSettings {
    /// The attack of `protocol`. The step of FGSM is eps. The step of PGD is 2.5 eps / iterations
    /// in units of pixels, or 1.85 eps / iterations in normalised units for [`Protocol::Paper`].
    ///
    /// # Errors
    /// `Error::Usage` if eps is negative or not finite, or if the number of iterations is 0.
    pub fn of_protocol(protocol: Protocol, method: Method, eps: f32) -> Result<Self> {
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(Error::usage(format!(
                "eps is {eps}; expected a finite number, 0 or more"
            )));
        }
        let units = Units::of(protocol);
        let factor = match units {
            Units::Pixels => 2.5,
            Units::Normalized => 1.85,
        };
        let alpha = match method {
            Method::Fgsm => eps,
            Method::Pgd { iterations: 0 } => {
                return Err(Error::usage("PGD has 0 iterations; use 1 or more"));
            }
            Method::Pgd { iterations } => factor * eps / iterations as f32,
        };
        Ok(AttackSettings {
            method,
            units,
            eps,
            alpha,
        })
    }

    /// One step of size `alpha` from `x` along the sign of `dx`.
    fn step(&self, alpha: f32, [x, dx, clean]: [&Tensor; 3], device: &Device) -> Result<Tensor> {
        let [low, high] = self.units.range();
        device.run(AttackStep {
            x,
            dx,
            clean,
            alpha,
            eps: self.eps,
            low,
            high,
        })
    }
}

/// Converts images with pixels in [0, 1] to the units of an attack.
pub fn in_units(device: &Device, units: Units, images: &Tensor) -> Result<Tensor> {
    match units {
        Units::Pixels => Ok(images.clone()),
        Units::Normalized => Normalization::Cifar10.apply(device, images),
    }
}

/// Converts images in the units of an attack to the input of a network, pixels normalised by
/// `normalization`.
///
/// # Errors
/// As [`Units::check`].
pub fn network_input(units: Units, normalization: Normalization, images: &Var) -> Result<Var> {
    units.check(normalization)?;
    match (units, normalization.statistics()) {
        (Units::Pixels, Some((mean, std))) => images.normalize(mean, std),
        (Units::Pixels, None) | (Units::Normalized, _) => Ok(images.clone()),
    }
}

/// Attacks the images `clean [N, 3, H, W]`, which are in the units of `settings`: moves them to
/// increase the loss of `classifier` against `labels` (u32 `[N]`). The results are within eps of
/// `clean`, up to the rounding of `clean +- eps`, and within the range of the units. `classifier`
/// maps images in these units to logits `[N, classes]`. It runs in evaluation mode, so images do
/// not affect each other. `key` determines the random start of PGD.
///
/// The upper end of the paper's range, 2.7537, is rounded: a blue of 1 is normalised to 2.75373.
/// Any eps above 0 moves it to 2.7537, even if the difference is larger than eps.
///
/// # Errors
/// Those of the classifier; `Error::Shape` if the labels do not match the images.
pub fn perturb(
    device: &Device,
    classifier: impl Fn(&Var) -> Result<Var>,
    clean: &Tensor,
    labels: &Tensor,
    settings: &AttackSettings,
    key: NoiseKey,
) -> Result<Tensor> {
    let start = match settings.method {
        _ if settings.eps == 0.0 => return Ok(clean.clone()),
        Method::Fgsm => clean.clone(),
        Method::Pgd { .. } => {
            let noise = device.run(Uniform {
                key,
                low: -settings.eps,
                high: settings.eps,
                shape: clean.shape(),
            })?;
            let (a, b) = (clean, &noise);
            let moved = device.run(Add { a, b })?;
            settings.step(0.0, [&moved, &noise, clean], device)?
        }
    };
    climb(device, classifier, &start, clean, labels, settings)
}

/// Runs the steps of an attack from `start`, which is in the ball around `clean`. Otherwise as
/// [`perturb`].
///
/// # Errors
/// As [`perturb`].
pub fn climb(
    device: &Device,
    classifier: impl Fn(&Var) -> Result<Var>,
    start: &Tensor,
    clean: &Tensor,
    labels: &Tensor,
    settings: &AttackSettings,
) -> Result<Tensor> {
    let iterations = match settings.method {
        Method::Fgsm => 1,
        Method::Pgd { iterations } => iterations,
    };
    let mut x = start.clone();
    for _ in 0..iterations {
        let dx = input_gradient(device, &classifier, &x, labels)?;
        x = settings.step(settings.alpha, [&x, &dx, clean], device)?;
        device.submit()?;
    }
    Ok(x)
}

/// Computes the gradient of the mean cross-entropy with respect to the images `x` only.
///
/// # Errors
/// As [`perturb`].
pub fn input_gradient(
    device: &Device,
    classifier: impl Fn(&Var) -> Result<Var>,
    x: &Tensor,
    labels: &Tensor,
) -> Result<Tensor> {
    let tape = Tape::of_input(device);
    let loss = classifier(&tape.input(x))?.cross_entropy(labels)?;
    let gradients = loss.backward()?;
    gradients.of(x).cloned().ok_or_else(|| {
        Error::shape(
            "attack",
            "the logits of the classifier do not depend on the images",
        )
    })
}
