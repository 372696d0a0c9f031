//! A command's arguments, options told from operands, as getopt does it.

/// The arguments of one command.
#[derive(Debug, Default)]
pub(super) struct Arguments<'a> {
    /// Short options, and the value of each that takes one.
    pub short: Vec<(char, Option<&'a str>)>,
    /// Long options, without the two dashes.
    pub long: Vec<&'a str>,
    /// Everything else.
    pub operands: Vec<&'a str>,
}

impl<'a> Arguments<'a> {
    /// Reads `words`, where the short options in `takes_value` have a value, attached or as the next word.
    pub fn read(words: &'a [String], takes_value: &str) -> Result<Self, String> {
        let mut read = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if word == "--" {
                read.operands.extend(words.by_ref());
            } else if word == "--target-directory" {
                read.short.push(('t', words.next()));
            } else if let Some(directory) = word.strip_prefix("--target-directory=") {
                read.short.push(('t', Some(directory)));
            } else if let Some(long) = word.strip_prefix("--") {
                read.long.push(long);
            } else if let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) {
                let mut chars = flags.chars();
                while let Some(flag) = chars.next() {
                    if !takes_value.contains(flag) {
                        read.short.push((flag, None));
                        continue;
                    }
                    let value = match chars.as_str() {
                        "" => words.next(),
                        attached => Some(attached),
                    };
                    read.short.push((
                        flag,
                        Some(value.ok_or_else(|| format!("its option -{flag} has no value"))?),
                    ));
                    break;
                }
            } else {
                read.operands.push(word);
            }
        }
        Ok(read)
    }

    /// Whether an option is given in either form.
    pub fn has(&self, short: char, long: &str) -> bool {
        self.short.iter().any(|(flag, _)| *flag == short) || self.long.contains(&long)
    }

    /// The value of a short option.
    pub fn value(&self, short: char) -> Option<&'a str> {
        self.short
            .iter()
            .find(|(flag, _)| *flag == short)
            .and_then(|(_, value)| *value)
    }

    /// What is copied, to where, and whether the target was named as a directory.
    pub fn endpoints(&self, program: &str) -> Result<(&'a str, &'a str, bool), String> {
        // rsync's -T is a place for temporary files.
        match (self.value('t'), self.operands.as_slice()) {
            (Some(directory), [source]) => Ok((source, directory, true)),
            (None, [source, target]) => Ok((source, target, false)),
            _ => Err(format!("{program} in it does not have one source and one target")),
        }
    }
}
