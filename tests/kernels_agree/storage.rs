//! Uploads, downloads and copies.

use parallax::device::kernels::HostSlice;
use parallax::tensor::DType;

use crate::compare::{bits, get, get_u32, normal, put, put_u32, random};
use crate::devices;

const COUNTS: [usize; 9] = [1, 2, 3, 5, 64, 65, 257, 1023, 70_001];

#[test]
fn floats_come_back_to_the_bit() {
    let mut rng = random(80);
    for count in COUNTS {
        let mut x = normal(&mut rng, count);
        x[count - 1] = f32::NAN;
        x[0] = -0.0;
        let other = normal(&mut rng, count);
        for (name, device) in devices::all() {
            let tensor = put(&device, &x, &[count]);
            assert_eq!(bits(&get(&device, &tensor)), bits(&x), "{count} on {name}");
            let copy = device.copy(&tensor).expect(name);
            assert_ne!(copy.id(), tensor.id(), "a copy has its own storage");
            device
                .overwrite(&tensor, HostSlice::F32(&other))
                .expect(name);
            assert_eq!(
                get(&device, &tensor),
                other,
                "overwritten, {count} on {name}"
            );
            assert_eq!(
                bits(&get(&device, &copy)),
                bits(&x),
                "the copy, {count} on {name}"
            );
        }
    }
}

#[test]
fn integers_and_bytes_come_back() {
    let mut rng = random(81);
    for count in COUNTS {
        let words: Vec<u32> = (0..count).map(|_| rng.next_u32()).collect();
        let bytes: Vec<u8> = words.iter().map(|&word| word as u8).collect();
        for (name, device) in devices::all() {
            let case = format!("{count} on {name}");
            let tensor = put_u32(&device, &words, &[count]);
            assert_eq!(get_u32(&device, &tensor), words, "{case}");
            let copy = device.copy(&tensor).expect(name);
            assert_eq!(get_u32(&device, &copy), words, "{case}");

            let tensor = device.upload(HostSlice::U8(&bytes), &[count]).expect(name);
            assert_eq!(tensor.dtype(), DType::U8);
            assert_eq!(
                device.download(&tensor).expect(name).wait().expect(name),
                bytes,
                "{case}"
            );
            let copy = device.copy(&tensor).expect(name);
            device
                .overwrite(&tensor, HostSlice::U8(&vec![7; count]))
                .expect(name);
            assert_eq!(
                device.download(&copy).expect(name).wait().expect(name),
                bytes,
                "{case}"
            );
            assert_eq!(
                device.download(&tensor).expect(name).wait().expect(name),
                vec![7; count],
                "{case}"
            );
        }
    }
}

#[test]
fn zeros_are_zeros_in_memory_that_was_used_before() {
    for count in COUNTS {
        for (name, device) in devices::all() {
            let case = format!("{count} on {name}");
            drop(put(&device, &vec![3.0; count], &[count]));
            let x = device.zeros(&[count], DType::F32).expect(name);
            assert_eq!(bits(&get(&device, &x)), vec![0; count], "{case}");
            drop(put_u32(&device, &vec![3; count], &[count]));
            let x = device.zeros(&[count], DType::U32).expect(name);
            assert_eq!(get_u32(&device, &x), vec![0; count], "{case}");
            let x = device.zeros(&[count], DType::U8).expect(name);
            assert_eq!(
                device.download(&x).expect(name).wait().expect(name),
                vec![0; count],
                "{case}"
            );
        }
    }
}

#[test]
fn work_recorded_before_an_overwrite_sees_the_old_numbers() {
    for (name, device) in devices::all() {
        let x = put(&device, &[1.0, 2.0], &[2]);
        let doubled = device.scale(2.0, &x).expect(name);
        device
            .overwrite(&x, HostSlice::F32(&[10.0, 20.0]))
            .expect(name);
        let tripled = device.scale(3.0, &x).expect(name);
        device.submit().expect(name);
        assert_eq!(get(&device, &doubled), [2.0, 4.0], "{name}");
        assert_eq!(get(&device, &tripled), [30.0, 60.0], "{name}");
    }
}

#[test]
fn memory_in_use_is_counted() {
    for (name, device) in devices::all() {
        let x = device.zeros(&[1000, 1000], DType::F32).expect(name);
        let memory = device.memory();
        assert!(memory.current >= 4_000_000, "{name}: {memory:?}");
        assert!(memory.peak >= memory.current, "{name}: {memory:?}");
        drop(x);
    }
}
