//! The text files of a backup: checkpoints, info, binlog position, `backup-my.cnf`.
