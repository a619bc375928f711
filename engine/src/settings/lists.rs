//! Settings that are more than one word: readers and writers for the table.

use super::given::{Given, Place, SettingError, memory_size, quoted, whole_number};
use super::table::text;
use super::{
    KEEPALIVE_YES_SECS, MAX_BIND_ADDRS, MAX_RENAMED_COMMANDS, MAX_SAVE_POINTS, MAX_TEXT_LEN, OutputLimit,
    RenamedCommand, SavePoint, Settings,
};
use crate::commands;
use std::net::IpAddr;

/// `no` and `yes` where the setting stands for them, so that GET shows what SET was given, else the seconds.
pub(crate) fn keepalive_text(secs: u32) -> Vec<u8> {
    match secs {
        0 => text("no"),
        KEEPALIVE_YES_SECS => text("yes"),
        _ => text(secs),
    }
}

pub(crate) fn keepalive_secs(given: &Given<'_>) -> Result<u32, SettingError> {
    match given.flag() {
        Ok(is_on) => Ok(if is_on { KEEPALIVE_YES_SECS } else { 0 }),
        Err(_) => whole_number::<u32>(given.word()?),
    }
}

fn save_point_text(point: &SavePoint) -> Vec<u8> {
    text(format_args!("{} {}", point.seconds, point.changes))
}

pub(crate) fn save_text(settings: &Settings) -> Vec<u8> {
    settings.save.iter().map(save_point_text).collect::<Vec<_>>().join(&b' ')
}

pub(crate) fn save_lines(settings: &Settings) -> Vec<Vec<u8>> {
    if settings.save.is_empty() {
        vec![quoted(b"")]
    } else {
        settings.save.iter().map(save_point_text).collect()
    }
}

/// The first line replaces the defaults, later lines add to it; an empty value removes all, and CONFIG SET replaces.
pub(crate) fn set_save(settings: &mut Settings, given: &Given<'_>) -> Result<(), SettingError> {
    let numbers = given.list();
    if given.words.is_empty() || !numbers.len().is_multiple_of(2) {
        return Err(SettingError::Invalid);
    }
    if numbers.is_empty() || given.place != Place::LaterLine {
        settings.save.clear();
    }
    for pair in numbers.chunks_exact(2) {
        let (seconds, changes) = (whole_number(pair[0])?, whole_number(pair[1])?);
        if seconds == 0 {
            return Err(SettingError::Invalid);
        }
        settings.save.push(SavePoint { seconds, changes });
    }
    if settings.save.len() > MAX_SAVE_POINTS {
        Err(SettingError::Refused("more than 64 save points"))
    } else {
        Ok(())
    }
}

pub(crate) fn output_limits_text(settings: &Settings) -> Vec<Vec<u8>> {
    let limits = settings.client_output_buffer_limit;
    let line = |class, limit: OutputLimit| {
        text(format_args!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_secs))
    };
    vec![line("normal", limits.normal), line("pubsub", limits.pubsub)]
}

/// Changes only the classes that are named. CONFIG SET takes plain byte counts, as clients know it.
pub(crate) fn set_output_limits(settings: &mut Settings, given: &Given<'_>) -> Result<(), SettingError> {
    let words = given.list();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err(SettingError::Invalid);
    }
    let size = if given.place == Place::Command { whole_number } else { memory_size };
    for group in words.chunks_exact(4) {
        let limits = &mut settings.client_output_buffer_limit;
        let class = match group[0].to_ascii_lowercase().as_slice() {
            b"normal" => &mut limits.normal,
            b"pubsub" => &mut limits.pubsub,
            _ => return Err(SettingError::Invalid),
        };
        *class = OutputLimit {
            hard_bytes: size(group[1])?,
            soft_bytes: size(group[2])?,
            soft_secs: whole_number(group[3])?,
        };
    }
    Ok(())
}

pub(crate) fn bind_lines(settings: &Settings) -> Vec<Vec<u8>> {
    match settings.bind.is_empty() {
        true => vec![quoted(b"")],
        false => {
            vec![settings.bind.iter().map(|addr| quoted(addr.as_bytes())).collect::<Vec<_>>().join(&b' ')]
        }
    }
}

pub(crate) fn set_bind(settings: &mut Settings, given: &Given<'_>) -> Result<(), SettingError> {
    let addrs = given.list();
    if given.words.is_empty() || addrs.len() > MAX_BIND_ADDRS {
        return Err(SettingError::Invalid);
    }
    let addr = |word: &[u8]| {
        let text = std::str::from_utf8(word).ok();
        let addr = text.filter(|text| *text == "*" || text.parse::<IpAddr>().is_ok());
        addr.map(str::to_owned).ok_or(SettingError::Invalid)
    };
    settings.bind = addrs.into_iter().map(addr).collect::<Result<_, _>>()?;
    Ok(())
}

pub(crate) fn rename_lines(settings: &Settings) -> Vec<Vec<u8>> {
    let pair = |renamed: &RenamedCommand| {
        [quoted(renamed.command.as_bytes()), quoted(renamed.name.as_bytes())].join(&b' ')
    };
    settings.rename_command.iter().map(pair).collect()
}

/// The last line about a command counts. A command that does not exist is refused: a slip of the pen must not leave open
/// what was to be closed.
pub(crate) fn set_rename(settings: &mut Settings, given: &Given<'_>) -> Result<(), SettingError> {
    let [command, name] = given.words else { return Err(SettingError::Invalid) };
    let word = |bytes: &[u8]| {
        let is_word = bytes.len() <= MAX_TEXT_LEN && bytes.iter().all(u8::is_ascii_graphic);
        is_word.then(|| String::from_utf8_lossy(bytes).into_owned()).ok_or(SettingError::Invalid)
    };
    let renamed = RenamedCommand { command: word(command)?, name: word(name)? };
    settings.rename_command.retain(|earlier| !earlier.command.eq_ignore_ascii_case(&renamed.command));
    if renamed.command.is_empty() || settings.rename_command.len() == MAX_RENAMED_COMMANDS {
        return Err(SettingError::Invalid);
    }
    if !is_command(&renamed.command) {
        return Err(SettingError::Refused("there is no such command; docs/commands.md has those that exist"));
    }
    settings.rename_command.push(renamed);
    Ok(())
}

fn is_command(name: &str) -> bool {
    commands::all().any(|spec| spec.name.eq_ignore_ascii_case(name))
}

/// A name that two commands would have once all lines are read. Later lines may free a name, so no line alone can tell.
pub fn name_of_two_commands(settings: &Settings) -> Option<&str> {
    let renames = &settings.rename_command;
    let is_renamed = |name: &str| renames.iter().any(|renamed| renamed.command.eq_ignore_ascii_case(name));
    let names = || renames.iter().map(|renamed| renamed.name.as_str()).filter(|name| !name.is_empty());
    names().enumerate().find_map(|(position, name)| {
        let is_earlier = names().take(position).any(|earlier| earlier.eq_ignore_ascii_case(name));
        // QUIT is older than the table of commands, and can't be renamed.
        let is_kept = name.eq_ignore_ascii_case("quit") || is_command(name) && !is_renamed(name);
        (is_earlier || is_kept).then_some(name)
    })
}
