//! The driver's data of compiled pipelines, in and out as bytes. Keeping them is the caller's.

use sha2::{Digest, Sha256};

use super::Gpu;

/// Bytes of the digest in front of the data.
const DIGEST: usize = 32;

impl Gpu {
    /// The name under which data for this adapter can be kept; none where the adapter has no such data.
    pub fn pipeline_key(&self) -> Option<&str> {
        self.context.pipeline_key.as_deref()
    }

    /// Lets the driver take pipelines from `bytes`, which [`Gpu::pipeline_data`] returned on an adapter with the
    /// same key, and note those that it makes. To be called before the first kernel; a second call does nothing, nor
    /// does any where [`Gpu::pipeline_key`] is none.
    ///
    /// # Errors
    /// Where `bytes` are not what was returned; the driver then begins with none.
    pub fn load_pipelines(&self, bytes: Option<&[u8]>) -> Result<(), String> {
        if self.context.pipeline_key.is_none() {
            return Ok(());
        }
        let data = bytes.map(checked).transpose();
        self.context.pipeline_cache.get_or_init(|| {
            let descriptor = wgpu::PipelineCacheDescriptor {
                label: Some("pipelines"),
                data: data.as_ref().ok().copied().flatten(),
                // Data of another driver or version are dropped and no error.
                fallback: true,
            };
            // SAFETY: the data must come from `get_data` on an adapter with the same key. They stand behind a digest
            // that `pipeline_data` wrote, so that no damage since has gone unseen; wgpu compares the adapter and the
            // driver in their header with those at hand.
            unsafe { self.context.device.create_pipeline_cache(&descriptor) }
        });
        data.map(drop)
    }

    /// The data of the pipelines so far, for [`Gpu::load_pipelines`]; none where there are none.
    pub fn pipeline_data(&self) -> Option<Vec<u8>> {
        let data = self.context.pipeline_cache.get()?.get_data()?;
        let mut bytes = Sha256::digest(&data).to_vec();
        bytes.extend(data);
        Some(bytes)
    }
}

/// The data behind their digest.
fn checked(bytes: &[u8]) -> Result<&[u8], String> {
    let (digest, data) = bytes
        .split_at_checked(DIGEST)
        .ok_or_else(|| format!("{} bytes are too few", bytes.len()))?;
    match Sha256::digest(data)[..] == *digest {
        true => Ok(data),
        false => Err("its digest does not fit its content".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_data_are_told() {
        let mut bytes = Sha256::digest(b"pipelines").to_vec();
        bytes.extend(b"pipelines");
        assert_eq!(checked(&bytes), Ok(&b"pipelines"[..]));
        bytes[DIGEST] ^= 1;
        assert!(checked(&bytes).unwrap_err().contains("digest"));
        assert!(checked(&bytes[..DIGEST - 1]).unwrap_err().contains("few"));
    }
}
