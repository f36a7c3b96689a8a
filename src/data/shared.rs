//! A data set that one rank of a machine reads for the others.

use super::{Dataset, Images};
use crate::distributed::Group;
use crate::error::{Error, Result};

/// The data set that `read` returns. Of several ranks, the first one of each machine calls `read`
/// and sends the images to the others, or if they are streamed, all others call `read` after it. All
/// ranks have to call this, and have the same error.
///
/// # Errors
/// The error of the first rank whose `read` failed. `Error::Usage` if machines read other images.
pub fn read_once(group: Group, read: impl FnOnce() -> Result<Dataset>) -> Result<Dataset> {
    if group.size() == 1 {
        return read();
    }
    // The data set, or the way to read it.
    let own = if group.is_first_on_machine() {
        read().map(Ok)
    } else {
        Ok(Err(read))
    };
    let own = group.agree(own)?;
    let digest = own.as_ref().ok().map(|dataset| dataset.digest.clone());
    let of_first = group.broadcast(digest.clone().unwrap_or_default().into_bytes())?;
    let is_other = digest.is_some_and(|digest| digest.into_bytes() != of_first);
    group.agree(if is_other {
        Err(Error::usage(format!(
            "the machine of rank {} has other images than that of rank 0; give all machines the same data set",
            group.rank()
        )))
    } else {
        Ok(())
    })?;
    let streamed = |dataset: &Dataset| match &dataset.pretraining().images {
        Images::Held(_) => vec![0],
        Images::Streamed(_) => vec![1],
    };
    let is_streamed = own.as_ref().map_or(Vec::new(), streamed);
    if group.share_on_machine(is_streamed)? == [1] {
        // The first rank has stored that all files can be decoded, so this only lists them.
        return group.agree(own.or_else(|read| read()));
    }
    let failed = |e: serde_json::Error| Error::usage(format!("the data set cannot be sent: {e}"));
    let mut dataset = match own {
        Ok(dataset) => {
            group.share_on_machine(serde_json::to_vec(&dataset).map_err(failed)?)?;
            dataset
        }
        Err(_) => serde_json::from_slice(&group.share_on_machine(Vec::new())?).map_err(failed)?,
    };
    let Dataset {
        train,
        test,
        unlabelled,
        ..
    } = &mut dataset;
    for split in [train, test].into_iter().chain(unlabelled) {
        let pixels = match std::mem::take(&mut split.images) {
            Images::Held(pixels) => pixels,
            Images::Streamed(_) => Vec::new(),
        };
        split.images = Images::Held(group.share_on_machine(pixels)?);
    }
    Ok(dataset)
}
