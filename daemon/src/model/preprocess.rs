//! A picture becomes the tensor the vision tower was trained on.
