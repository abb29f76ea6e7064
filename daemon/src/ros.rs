//! What ROS 2 nodes say and hear, without ROS installed: message types, their bytes, and where they go.

pub mod message;
pub mod cdr;
pub mod names;
pub mod layout;
pub mod speech;

/// A message type as ROS 2 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RosType {
    /// Name of the package.
    pub package: &'static str,
    /// Name of the type in the package.
    pub name: &'static str,
    /// Hash of the type description as ROS 2 computes it since Iron, `RIHS01_` in front.
    pub hash: &'static str,
}

impl RosType {
    /// The name that DDS knows the type by, such as `std_msgs::msg::dds_::String_`.
    pub fn dds_name(&self) -> String {
        format!("{}::msg::dds_::{}_", self.package, self.name)
    }

    /// The name in ROS 2, such as `std_msgs/msg/String`.
    pub fn ros_name(&self) -> String {
        format!("{}/msg/{}", self.package, self.name)
    }
}

/// A message of ROS 2.
pub trait RosMessage {
    /// Its type.
    const TYPE: RosType;
}
