"""What a network does around its data: one examination a file, each a function from a subject to a finding."""
