use super::{DType, Tensor};
use crate::device::Readback;
use crate::ops::{CopyTensor, Scale};
use crate::testing::{
    bits, devices, get, get_u32, get16, normal, put, put_u32, random, refused, zeros, zeros_u32,
};

const COUNTS: [usize; 9] = [1, 2, 3, 5, 64, 65, 257, 1023, 70_001];

/// Waits for the elements as bytes.
fn bytes(x: &Tensor) -> Vec<u8> {
    x.read().and_then(Readback::wait).expect("a download")
}

#[test]
fn floats_are_stored_bit_by_bit() {
    let mut rng = random(80);
    for count in COUNTS {
        let mut x = normal(&mut rng, count);
        x[count - 1] = f32::NAN;
        x[0] = -0.0;
        let other = normal(&mut rng, count);
        for (name, device) in devices::all() {
            let case = format!("{count} on {name}");
            let tensor = put(&device, &x, &[count]);
            assert_eq!(bits(&get(&tensor)), bits(&x), "{case}");
            let clone = tensor.clone();
            let copy = device.run(CopyTensor { x: &tensor }).expect(name);
            assert_ne!(copy.id(), tensor.id(), "a copy has its own storage");
            tensor.overwrite(&other).expect(name);
            assert_eq!(get(&tensor), other, "overwritten, {case}");
            assert_eq!(get(&clone), other, "a clone, {case}");
            assert_eq!(bits(&get(&copy)), bits(&x), "a copy, {case}");
        }
    }
}

#[test]
fn integers_and_bytes_are_stored() {
    let mut rng = random(81);
    for count in COUNTS {
        let words: Vec<u32> = (0..count).map(|_| rng.next_u32()).collect();
        let small: Vec<u8> = words.iter().map(|&word| word as u8).collect();
        for (name, device) in devices::all() {
            let case = format!("{count} on {name}");
            let tensor = put_u32(&device, &words, &[count]);
            assert_eq!(get_u32(&tensor), words, "{case}");
            let copy = device.run(CopyTensor { x: &tensor }).expect(name);
            assert_eq!(get_u32(&copy), words, "{case}");

            let tensor = Tensor::from_slice(&small, &[count], &device).expect(name);
            assert_eq!(tensor.dtype(), DType::U8);
            assert_eq!(bytes(&tensor), small, "{case}");
            let copy = device.run(CopyTensor { x: &tensor }).expect(name);
            tensor.overwrite(&vec![7u8; count]).expect(name);
            assert_eq!(copy.to_vec::<u8>().expect(name), small, "{case}");
            assert_eq!(bytes(&tensor), vec![7; count], "{case}");
        }
    }
}

#[test]
fn zeros_are_zeros_in_memory_that_was_used_before() {
    for count in COUNTS {
        for (name, device) in devices::all() {
            let case = format!("{count} on {name}");
            drop(put(&device, &vec![3.0; count], &[count]));
            let x = zeros(&device, &[count]);
            assert_eq!(bits(&get(&x)), vec![0; count], "{case}");
            drop(put_u32(&device, &vec![3; count], &[count]));
            let x = zeros_u32(&device, &[count]);
            assert_eq!(get_u32(&x), vec![0; count], "{case}");
            let x = Tensor::zeros(&[count], DType::U8, &device).expect(name);
            assert_eq!(bytes(&x), vec![0; count], "{case}");
        }
    }
}

#[test]
fn f16_zeros_are_zeros() {
    for (name, device) in devices::with_f16(devices::all()) {
        for count in [1, 2, 3, 5, 8, 255, 1025, 4097, 33_333, 40_000, 70_001] {
            let x = Tensor::zeros(&[count], DType::F16, &device).expect(name);
            assert!(get16(&x).iter().all(|&x| x == 0.0), "{count} on {name}");
        }
    }
}

#[test]
fn work_recorded_before_an_overwrite_uses_the_old_numbers() {
    for (name, device) in devices::all() {
        let x = &put(&device, &[1.0, 2.0], &[2]);
        let doubled = device.run(Scale { factor: 2.0, x }).expect(name);
        x.overwrite(&[10.0f32, 20.0]).expect(name);
        let tripled = device.run(Scale { factor: 3.0, x }).expect(name);
        device.submit().expect(name);
        assert_eq!(get(&doubled), [2.0, 4.0], "{name}");
        assert_eq!(get(&tripled), [30.0, 60.0], "{name}");
    }
}

/// A transfer copies the numbers of the moment at which it was started.
#[test]
fn a_transfer_started_before_an_overwrite_has_the_old_numbers() {
    for (name, device) in devices::all() {
        let x = put(&device, &[1.0, 2.0], &[2]);
        let transfer = x.read().expect(name);
        x.overwrite(&[10.0f32, 20.0]).expect(name);
        let values: Vec<f32> = transfer.wait_as().expect(name);
        assert_eq!(values, [1.0, 2.0], "{name}");
    }
}

#[test]
fn memory_in_use_is_counted() {
    for (name, device) in devices::all() {
        let x = zeros(&device, &[1000, 1000]);
        let memory = device.memory();
        assert!(memory.current >= 4_000_000, "{name}: {memory:?}");
        assert!(memory.peak >= memory.current, "{name}: {memory:?}");
        drop(x);
    }
}

#[test]
fn a_tensor_is_on_its_device_and_on_no_other() {
    let all = devices::all();
    for (i, (name, device)) in all.iter().enumerate() {
        let x = zeros(device, &[3]);
        for (j, (other, _)) in all.iter().enumerate() {
            assert_eq!(all[j].1.holds(&x), i == j, "a tensor of {name} on {other}");
        }
        assert!(x.device().holds(&x), "{name}");
    }
}

#[test]
fn values_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let three = [1.0f32, 2.0, 3.0];
        let created = Tensor::from_slice(&three, &[2, 2], &device);
        refused(name, "from_slice: three numbers for [2, 2]", created);
        let huge = [1 << 20, 1 << 20];
        let created = Tensor::zeros(&huge, DType::F32, &device);
        refused(name, "zeros: 2^40 elements", created);
        let endless = [usize::MAX, 3];
        let created = Tensor::zeros(&endless, DType::F32, &device);
        refused(name, "zeros: an overflow", created);
        let (two, integers) = (zeros(&device, &[2]), zeros_u32(&device, &[3]));
        refused(name, "overwrite: count", two.overwrite(&three));
        refused(name, "overwrite: type", integers.overwrite(&three));
        let reshaped = zeros(&device, &[2, 3]).reshape(&[5]);
        refused(name, "reshape: count", reshaped);
        refused(name, "to_vec: type", integers.to_vec::<f32>());
        refused(name, "to_scalar: count", two.to_scalar::<f32>());
        let one = put(&device, &[1.5], &[1]);
        assert_eq!(one.to_scalar::<f32>().expect(name), 1.5, "{name}");
    }
}
