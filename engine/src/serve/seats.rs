//! Who is connected: so many at a time.
//!
//! Whoever has not logged in yet makes room for who comes, the oldest first, so that strangers who only
//! connect do not keep replicas out. Whoever has logged in is never sent away for others.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Places for connections.
pub struct Seats {
    most: usize,
    /// The oldest first.
    guests: Mutex<Vec<Guest>>,
}

struct Guest {
    number: u32,
    peer: SocketAddr,
    /// To end the connection while another thread waits for it.
    stream: TcpStream,
    has_logged_in: bool,
}

/// How a connection got its place.
pub struct Taken<'a> {
    pub seat: Seat<'a>,
    /// Who had to go for it.
    pub sent_away: Option<SocketAddr>,
}

/// A place that a connection has until this is dropped.
pub struct Seat<'a> {
    seats: &'a Seats,
    number: u32,
}

impl Seats {
    pub fn new(most: usize) -> Self {
        Self { most, guests: Mutex::default() }
    }

    fn guests(&self) -> MutexGuard<'_, Vec<Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection with a number of its own; `None` when everybody has logged in.
    pub fn take(
        &self,
        number: u32,
        peer: SocketAddr,
        stream: &TcpStream,
    ) -> std::io::Result<Option<Taken<'_>>> {
        let stream = stream.try_clone()?;
        let mut guests = self.guests();
        let mut sent_away = None;
        if guests.len() >= self.most {
            let Some(stranger) = guests.iter().position(|guest| !guest.has_logged_in) else {
                return Ok(None);
            };
            let stranger = guests.remove(stranger);
            // Its thread reads the end of the connection, if it is not there yet.
            let _ = stranger.stream.shutdown(Shutdown::Both);
            sent_away = Some(stranger.peer);
        }
        guests.push(Guest { number, peer, stream, has_logged_in: false });
        Ok(Some(Taken { seat: Seat { seats: self, number }, sent_away }))
    }
}

impl Seat<'_> {
    /// From now on it keeps its place. False if it has lost it already.
    pub fn keep(&self) -> bool {
        let mut guests = self.seats.guests();
        let guest = guests.iter_mut().find(|guest| guest.number == self.number);
        guest.map(|guest| guest.has_logged_in = true).is_some()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.seats.guests().retain(|guest| guest.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn strangers_make_room_and_replicas_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let seats = Seats::new(2);
        let connect = || {
            let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, peer) = listener.accept().unwrap();
            (there, here, peer)
        };
        let (mut clients, mut servers, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..3 {
            let (there, here, peer) = connect();
            let seat = seats.take(number, peer, &here).unwrap().unwrap();
            assert_eq!(seat.sent_away.is_some(), number == 2);
            clients.push(there);
            servers.push(here);
            taken.push(seat.seat);
            if number == 0 {
                assert!(taken[0].keep());
            }
        }
        // The first had logged in, so that the second had to go.
        assert_eq!(clients[1].read(&mut [0]).unwrap(), 0);
        assert!(!taken[1].keep());
        assert!(taken[2].keep());
        let (_there, here, peer) = connect();
        assert!(seats.take(3, peer, &here).unwrap().is_none());
        taken.remove(1);
        assert!(seats.take(3, peer, &here).unwrap().is_none());
        taken.remove(1);
        assert!(seats.take(3, peer, &here).unwrap().unwrap().sent_away.is_none());
    }
}
