//! A data set that one rank of a machine reads for the others.

use super::Dataset;
use crate::distributed::Group;
use crate::error::{Error, Result};

/// The data set that `read` returns. Of several ranks, the first one of each machine calls `read`
/// and sends the images to the others. All ranks have to call this, and have the same error.
///
/// # Errors
/// The error of the first rank whose `read` failed. `Error::Usage` if machines read other images.
pub fn read_once(group: Group, read: impl FnOnce() -> Result<Dataset>) -> Result<Dataset> {
    if group.size() == 1 {
        return read();
    }
    let own = match group.is_first_on_machine() {
        true => read().map(Some),
        false => Ok(None),
    };
    let own = group.agree(own)?;
    let digest = own.as_ref().map(|dataset| dataset.digest.clone());
    let of_first = group.broadcast(digest.clone().unwrap_or_default().into_bytes())?;
    let is_other = digest.is_some_and(|digest| digest.into_bytes() != of_first);
    group.agree(match is_other {
        true => Err(Error::usage(format!(
            "the machine of rank {} has other images than that of rank 0; give all machines the same data set",
            group.rank()
        ))),
        false => Ok(()),
    })?;
    let failed = |e: serde_json::Error| Error::usage(format!("the data set cannot be sent: {e}"));
    let mut dataset = match own {
        Some(dataset) => {
            group.share_on_machine(serde_json::to_vec(&dataset).map_err(failed)?)?;
            dataset
        }
        None => serde_json::from_slice(&group.share_on_machine(Vec::new())?).map_err(failed)?,
    };
    let Dataset {
        train,
        test,
        unlabelled,
        ..
    } = &mut dataset;
    for split in [train, test].into_iter().chain(unlabelled) {
        split.images = group.share_on_machine(std::mem::take(&mut split.images))?;
    }
    Ok(dataset)
}
