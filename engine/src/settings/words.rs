//! Settings whose value is one of a few words.

/// A type whose values have names in configuration files.
pub trait Named: Copy + 'static {
    /// Every value with its name, lower case.
    const NAMES: &'static [(&'static str, Self)];

    /// The name of this value.
    fn name(self) -> &'static str;
}

/// Declares an enum together with the names of its values, so that the two can't part.
macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$note:meta])* $value:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$note])* $value,)+ }

        impl Named for $type {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self::$value),)+];

            fn name(self) -> &'static str {
                match self { $(Self::$value => $name,)+ }
            }
        }
    };
}

named! {
    /// The least weighty lines that the log takes.
    LogLevel {
        /// Every frame.
        Debug = "debug",
        /// More than most want.
        Verbose = "verbose",
        /// What changed.
        Notice = "notice",
        /// What the operator must look at.
        Warning = "warning",
    }
}

named! {
    /// Who watches over the process and how it is told that the node is ready.
    Supervised {
        /// Nobody.
        No = "no",
        /// Accepted for old files; works like `No`.
        Upstart = "upstart",
        /// A supervisor that is told through the socket in NOTIFY_SOCKET.
        Systemd = "systemd",
        /// `Systemd` if the environment has NOTIFY_SOCKET.
        Auto = "auto",
    }
}

named! {
    /// When the log of changes is forced to the disk.
    AppendFsync {
        /// Before a reply leaves.
        Always = "always",
        /// Once a second.
        Everysec = "everysec",
        /// When the operating system likes.
        No = "no",
    }
}

named! {
    /// The part of the system's log that lines go to.
    SyslogFacility {
        /// User programs.
        User = "user",
        /// Local use 0.
        Local0 = "local0",
        /// Local use 1.
        Local1 = "local1",
        /// Local use 2.
        Local2 = "local2",
        /// Local use 3.
        Local3 = "local3",
        /// Local use 4.
        Local4 = "local4",
        /// Local use 5.
        Local5 = "local5",
        /// Local use 6.
        Local6 = "local6",
        /// Local use 7.
        Local7 = "local7",
    }
}
