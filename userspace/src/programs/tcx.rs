//! Attachment by TCX links, which are pinned: a new agent puts its program into the pinned link.

use std::{fs, io, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions},
};

use super::{ProgramsError, link};

/// See [`super::hook::attach`].
pub(super) fn attach(
    program: &mut SchedClassifier,
    device: &str,
    path: &Path,
) -> Result<(), ProgramsError> {
    let failed = |source| ProgramsError::Attach {
        device: device.to_owned(),
        source: Box::new(source),
    };
    let link = match pinned(path)? {
        Some(link) => match program.attach_to_link(link) {
            Ok(link) => link,
            // The device the link was for is gone; the pin alone is left.
            Err(_) => {
                detach(path)?;
                fresh(program, device).map_err(failed)?
            }
        },
        None => fresh(program, device).map_err(failed)?,
    };
    let link = program.take_link(link).map_err(failed)?;
    if path.exists() {
        // Swapped in place: the pin stays, and dropping our handle leaves the link alone.
        return Ok(());
    }
    let kept = |source: Box<dyn std::error::Error + Send + Sync>| ProgramsError::Link {
        path: path.to_owned(),
        source,
    };
    let link: FdLink = link
        .try_into()
        .map_err(|error: LinkError| kept(error.into()))?;
    link.pin(path).map_err(|error| kept(error.into()))?;
    Ok(())
}

/// See [`super::hook::detach`].
pub(super) fn detach(path: &Path) -> Result<(), ProgramsError> {
    let detached = link::detach(path).and_then(|()| fs::remove_file(path));
    match detached {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ProgramsError::Link {
            path: path.to_owned(),
            source: source.into(),
        }),
    }
}

fn fresh(
    program: &mut SchedClassifier,
    device: &str,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    program.attach_with_options(device, TcAttachType::Ingress, order)
}

fn pinned(path: &Path) -> Result<Option<SchedClassifierLink>, ProgramsError> {
    if !path.exists() {
        return Ok(None);
    }
    let kept = |source: Box<dyn std::error::Error + Send + Sync>| ProgramsError::Link {
        path: path.to_owned(),
        source,
    };
    let link = PinnedLink::from_pin(path).map_err(|error| kept(error.into()))?;
    let link = FdLink::from(link);
    link.try_into()
        .map(Some)
        .map_err(|error: LinkError| kept(error.into()))
}
