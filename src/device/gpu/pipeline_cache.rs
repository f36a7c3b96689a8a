//! The driver's data of compiled pipelines, as bytes that the caller stores.

use sha2::{Digest, Sha256};

use super::Gpu;

/// The data follow a digest of this size.
const DIGEST_BYTES: usize = 32;

impl Gpu {
    /// Identifies the adapter and driver of the data. `None` if the adapter has no such data.
    pub fn pipeline_key(&self) -> Option<&str> {
        self.context.pipeline_key.as_deref()
    }

    /// Starts the collection of pipeline data, from `bytes` that [`Gpu::pipeline_data`] returned on
    /// an adapter with the same key, or from nothing. Call this before the first kernel. A second
    /// call has no effect, nor has a call if [`Gpu::pipeline_key`] is `None`.
    ///
    /// # Errors
    /// A description of the damage if `bytes` are damaged. The collection then starts from nothing.
    pub fn load_pipelines(&self, bytes: Option<&[u8]>) -> Result<(), String> {
        if self.context.pipeline_key.is_none() {
            return Ok(());
        }
        let data = bytes.map(checked).transpose();
        self.context.pipeline_cache.get_or_init(|| {
            let descriptor = wgpu::PipelineCacheDescriptor {
                label: Some("pipelines"),
                data: data.as_ref().ok().copied().flatten(),
                // The driver ignores data of another driver or version.
                fallback: true,
            };
            // SAFETY: the data must come from `get_data` on an adapter with the same key. The
            // digest that `pipeline_data` wrote excludes damage, and wgpu compares the header with
            // this adapter and driver.
            unsafe { self.context.device.create_pipeline_cache(&descriptor) }
        });
        data.map(drop)
    }

    /// The data of all pipelines compiled so far, for [`Gpu::load_pipelines`], if there are any.
    pub fn pipeline_data(&self) -> Option<Vec<u8>> {
        let data = self.context.pipeline_cache.get()?.get_data()?;
        let mut bytes = Sha256::digest(&data).to_vec();
        bytes.extend(data);
        Some(bytes)
    }
}

/// Returns the data behind the digest if they agree with it.
fn checked(bytes: &[u8]) -> Result<&[u8], String> {
    let (digest, data) = bytes
        .split_at_checked(DIGEST_BYTES)
        .ok_or_else(|| format!("{} bytes are too few", bytes.len()))?;
    if Sha256::digest(data)[..] != *digest {
        return Err("the digest does not agree with the content".to_string());
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_data_are_an_error() {
        let mut bytes = Sha256::digest(b"pipelines").to_vec();
        bytes.extend(b"pipelines");
        assert_eq!(checked(&bytes), Ok(&b"pipelines"[..]));
        bytes[DIGEST_BYTES] ^= 1;
        assert!(checked(&bytes).unwrap_err().contains("digest"));
        assert!(checked(&bytes[..31]).unwrap_err().contains("few"));
    }
}
