// Trains a network of its own on tensors of its own: points on two arms of a spiral.
// `cargo run --example own_network -- [cpu|gpu|auto|ADAPTER]`

use parallax::autograd::{Tape, Var};
use parallax::nn::{Linear, Module, Parameter, parameters};
use parallax::optim::Optimization;
use parallax::train::Trainer;
use parallax::{Device, Result, Tensor};

struct Network {
    hidden: Linear,
    output: Linear,
}

impl Module for Network {
    fn forward(&self, x: &Var) -> Result<Var> {
        self.output.forward(&self.hidden.forward(x)?.relu()?)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        parameters([&self.hidden as &dyn Module, &self.output])
    }
}

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or("auto".to_string());
    let device = Device::open(&name)?;
    let network = Network {
        hidden: Linear::new("hidden", 2, 64, 0, &device)?,
        output: Linear::new("output", 64, 2, 0, &device)?,
    };
    let points = (0..256).flat_map(|i| {
        let (radius, arm) = ((i / 2) as f32 / 128.0, (i % 2) as f32);
        let angle = 6.0 * radius + arm * std::f32::consts::PI;
        [radius * angle.cos(), radius * angle.sin()]
    });
    let x = Tensor::from_slice(&points.collect::<Vec<f32>>(), &[256, 2], &device)?;
    let labels = Tensor::from_slice(&[0u32, 1].repeat(128), &[256], &device)?;

    let objective = |network: &Network, tape: &Tape, _step| {
        network.forward(&tape.constant(&x))?.cross_entropy(&labels)
    };
    let mut trainer = Trainer::new(network, Optimization::adam(0.01), objective)?;
    let mut loss = f32::INFINITY;
    for step in 0..=300 {
        let pending = trainer.step(step)?;
        loss = trainer.finish(pending)?;
        if step % 100 == 0 {
            println!("step {step}: loss {loss:.4}");
        }
    }
    assert!(loss < 0.1, "the network did not learn the arms");
    Ok(())
}
