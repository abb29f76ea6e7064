//! Names as ROS 2 allows them, and the topics of this daemon.

/// The name of the node, below its namespace.
pub const NODE: &str = "mobilevlmd";

/// First part of this program's own keys, where no topic may lie.
const OWN_ROOT: &str = "mobilevlm";

/// Longest namespace in bytes, so that every topic stays below the 247 bytes that ROS 2 allows.
const NAMESPACE_BYTES: usize = 64;

/// A device, camera or rule as one part of a topic: ASCII letters, digits and underscores, a letter in
/// front. Everything else becomes an underscore, several in a row become one.
pub fn part(name: &str) -> String {
    let mut part = String::with_capacity(name.len() + 1);
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !part.ends_with('_') {
            part.push(c);
        }
    }
    if !part.starts_with(|c: char| c.is_ascii_alphabetic()) {
        part.insert(0, 'x');
    }
    part
}

/// Checks a namespace from the configuration: empty, `/`, or parts with slashes between, as in `/robot1/head`.
///
/// Errors: what is wrong with it, and what would be right.
pub fn check_namespace(namespace: &str) -> Result<(), String> {
    if matches!(namespace, "" | "/") {
        return Ok(());
    }
    if namespace.len() > NAMESPACE_BYTES {
        return Err(format!("{} bytes, at most {NAMESPACE_BYTES} are allowed", namespace.len()));
    }
    let parts: Vec<&str> = namespace.strip_prefix('/').unwrap_or(namespace).split('/').collect();
    if let Some(bad) = parts.iter().find(|given| part(given) != **given) {
        return Err(format!(
            "\"{bad}\" cannot be in a name of ROS 2: use letters, digits and underscores, a letter in front"
        ));
    }
    if parts[0] == OWN_ROOT {
        return Err(format!("\"{OWN_ROOT}\" is where the bus has its own keys: take another name"));
    }
    Ok(())
}

/// The topics of one daemon. Cameras and rules are given by their names in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    namespace: String,
}

impl Topics {
    /// Topics in a namespace that [`check_namespace`] accepts; an empty one takes the name of the device.
    pub fn new(namespace: &str, device: &str) -> Self {
        let namespace = match namespace.trim_start_matches('/') {
            "" if namespace.is_empty() => part(device),
            given => given.to_owned(),
        };
        match namespace.as_str() {
            // Of a device: the namespaces of the configuration are checked.
            OWN_ROOT => Self { namespace: format!("/{NODE}") },
            namespace => Self { namespace: format!("/{namespace}") },
        }
    }

    /// The namespace of the node, a slash in front.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `std_msgs/msg/String`: each caption.
    pub fn caption(&self, camera: &str) -> String {
        self.of_camera(camera, "caption")
    }

    /// `diagnostic_msgs/msg/DiagnosticArray`: each caption with its capture time and all that is known of it.
    pub fn caption_stamped(&self, camera: &str) -> String {
        self.of_camera(camera, "caption_stamped")
    }

    /// `std_msgs/msg/String`: questions in.
    pub fn ask(&self, camera: &str) -> String {
        self.of_camera(camera, "ask")
    }

    /// `std_msgs/msg/String`: the one message that ends each question.
    pub fn answer(&self, camera: &str) -> String {
        self.of_camera(camera, "answer")
    }

    /// `std_msgs/msg/String`: pieces of answers as they are written.
    pub fn answer_partial(&self, camera: &str) -> String {
        self.of_camera(camera, "answer_partial")
    }

    /// `vision_msgs/msg/Classification`: begin and end of a rule's alerts.
    pub fn alert(&self, rule: &str) -> String {
        self.absolute(&format!("alert/{}", part(rule)))
    }

    fn of_camera(&self, camera: &str, what: &str) -> String {
        self.absolute(&format!("camera/{}/{what}", part(camera)))
    }

    fn absolute(&self, topic: &str) -> String {
        format!("{}/{topic}", self.namespace.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts_of_topics() {
        for (name, expected) in [
            ("front", "front"),
            ("Arm_2", "Arm_2"),
            ("robot-1.local", "robot_1_local"),
            ("a--b", "a_b"),
            ("2nd", "x2nd"),
            ("_hidden", "x_hidden"),
            ("\u{fc}ber", "x_ber"),
        ] {
            assert_eq!(part(name), expected);
            assert_eq!(part(expected), expected);
        }
    }

    #[test]
    fn topics_read_as_documented() {
        let topics = |namespace: &str| {
            let topics = Topics::new(namespace, "robot-1");
            (topics.namespace().to_owned(), topics.caption("front"), topics.alert("door-open"))
        };
        let expected = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let of_device = expected("/robot_1", "/robot_1/camera/front/caption", "/robot_1/alert/door_open");
        assert_eq!(topics(""), of_device);
        assert_eq!(topics("/"), expected("/", "/camera/front/caption", "/alert/door_open"));
        let given = expected("/a/b", "/a/b/camera/front/caption", "/a/b/alert/door_open");
        assert_eq!(topics("/a/b"), given);
        assert_eq!(topics("a/b"), given);
    }

    #[test]
    fn no_topic_lies_among_the_own_keys() {
        assert_eq!(Topics::new("", "mobilevlm").namespace(), "/mobilevlmd");
        assert!(check_namespace("/mobilevlm/x").unwrap_err().contains("own keys"));
        for good in ["", "/", "a", "/a", "/a/B_2"] {
            assert_eq!(check_namespace(good), Ok(()), "{good}");
        }
        for bad in ["//", "/a/", "a b", "/1", "/a-b", "/_a", "/a//b", &"x".repeat(65)] {
            assert!(check_namespace(bad).is_err(), "{bad}");
        }
    }
}
