//! Where the server stands when the backup ends: in its binary log, as a replica, in its cluster.

use super::Extras;
use super::galera::{GaleraPosition, YoungLog};
use crate::server::Session;
use crate::server::position::ReplicationPosition;
use crate::server::profile::ServerProfile;
use crate::server::replica::ReplicaInfo;
use crate::{Reporter, Result};

/// All of it, of one moment.
pub struct Positions {
    /// In its own binary log.
    pub own: ReplicationPosition,
    /// As a replica, if it is one and that was asked for.
    pub replica: Option<ReplicaInfo>,
    /// In its cluster, if it is in one and that was asked for.
    pub galera: Option<GaleraPosition>,
    /// The binary log that begins there, with the cluster's.
    pub young_log: Option<YoungLog>,
}

impl Positions {
    /// Reads what was asked for. Commits must be blocked.
    pub fn read(
        session: &mut Session,
        profile: &ServerProfile,
        asked: Extras,
        reporter: &dyn Reporter,
    ) -> Result<Self> {
        let mut replica = None;
        if asked.replica_info {
            replica = ReplicaInfo::read(session)?;
            if replica.is_none() {
                reporter.info(
                    "Failed to get master binlog coordinates from SHOW SLAVE STATUS.This means \
                     that the server is not a replication slave. Ignoring the --slave-info option"
                        .to_owned(),
                );
            }
        }
        let (mut galera, mut begun) = (None, false);
        if asked.galera_info {
            galera = GaleraPosition::read(session, profile)?;
            if galera.is_none() {
                reporter.warn("Failed to get master wsrep state from SHOW STATUS.".to_owned());
            }
            begun = YoungLog::begin(session, profile)?;
        }
        let own = ReplicationPosition::read(session, profile)?;
        let young_log = if begun { YoungLog::read(profile, &own)? } else { None };
        Ok(Self { own, replica, galera, young_log })
    }
}
