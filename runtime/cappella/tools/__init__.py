"""What models may call before they answer: tool servers, tools in the box, and documents."""
