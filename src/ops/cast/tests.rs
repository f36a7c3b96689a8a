use super::Cast;
use super::cases;
use crate::autograd::Tape;
use crate::tensor::{DType, Tensor};
use crate::testing::{
    bits, check_cases, devices, different_devices, get, normal, normal16, put, put_u32, put16,
    random, refused, refused_argument, zeros, zeros_or_refused,
};

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::with_f16(devices::all()) {
        let cast = |x: &Tensor, dtype| device.run(Cast { x, dtype });
        refused_argument(name, "dtype", cast(&zeros(&device, &[2, 3]), DType::U32));
        refused_argument(name, "x", cast(&put_u32(&device, &[1], &[1]), DType::F16));
        zeros_or_refused(name, "no elements", cast(&zeros(&device, &[0]), DType::F32));
        let none = cast(&zeros(&device, &[0]), DType::F16).expect(name);
        zeros_or_refused(name, "no f16 elements", cast(&none, DType::F32));
    }
    for (case, device, other) in different_devices() {
        let (x, dtype) = (&zeros(&other, &[3]), DType::F32);
        refused(&case, "cast", device.run(Cast { x, dtype }));
    }
}

/// Differences of rounded results are no gradient, so this compares with the cast of the gradient.
#[test]
fn the_gradient_has_the_type_of_x() {
    let mut rng = random(88);
    let (x, dy) = (normal(&mut rng, 65), normal16(&mut rng, 65));
    for (name, device) in devices::with_f16(devices::all()) {
        let x = put(&device, &x, &[65]);
        let tape = Tape::new(&device);
        let leaf = tape.leaf(&x);
        let same = leaf.cast(DType::F32).expect(name);
        assert_eq!(same.tensor().id(), x.id(), "{name}");
        let y = leaf.cast(DType::F16).expect(name);
        let dy_there = put16(&device, &dy, &[65]);
        let gradients = y.backward_from(dy_there).expect(name);
        let dx = gradients.of(&x).expect(name);
        assert_eq!(bits(&get(dx)), bits(&dy), "{name}");
    }
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
