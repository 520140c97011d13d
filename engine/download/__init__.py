"""What goes into a download beside the images: its main, and stand-ins for modules that need more than torch."""
