"""What is known before a race: where it starts, how many steps each optimizer should take, and what stands in its way."""
