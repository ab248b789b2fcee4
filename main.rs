use pgwake::{Event, EventLoop, PollOptions};

fn main() -> pgwake::Result<()> {
    let mut events = EventLoop::new()?;
    let db = events.connect("dbname=app")?;
    events.poll(db, "SELECT id, body FROM jobs", PollOptions::new().wake_on("jobs"))?;
    while let Some(event) = events.next(None)? {
        if let Event::Rows(rows) = event {
            rows.iter().for_each(|row| println!("{:?} {:?}", row.get_str("id"), row.get_str(1)));
        }
    }
    Ok(())
}
