# For asciidoctor: what the documents need beyond it.
Asciidoctor::Extensions.register do
  # On paper no console block goes over the end of a page.
  treeprocessor do
    process do |document|
      document.find_by(context: :listing).each { |block| block.set_option 'unbreakable' }
      nil
    end
  end

  # In HTML, what the style sheet (docs/docinfo.html) has to know.
  postprocessor do
    # In console blocks, what one types, beside the prompt and the output. A line that ends in a
    # backslash goes on in the next.
    mark_commands = lambda do |text|
      continued = false
      text.lines.map(&:chomp).map do |line|
        is_command = continued || line.start_with?('$ ')
        marked = if continued
                   %(<span class="command">#{line}</span>)
                 elsif is_command
                   %(<span class="prompt">$ </span><span class="command">#{line[2..]}</span>)
                 else
                   %(<span class="output">#{line}</span>)
                 end
        continued = is_command && line.end_with?('\\')
        marked
      end.join("\n")
    end

    # In tables of three columns and more, the head of its column for each cell.
    label_cells = lambda do |table|
      heads = table[%r{<thead>.*?</thead>}m].to_s.scan(%r{<th [^>]*>(.*?)</th>}m).flatten
      next table if heads.length < 3

      table.gsub(%r{<tr>.*?</tr>}m) do |row|
        column = -1
        row.gsub('<td ') { %(<td data-label="#{heads[column += 1]&.gsub(/<[^>]*>/, '')}" ) }
      end
    end

    process do |document, output|
      next output unless document.backend == 'html5'

      output.gsub(%r{(<code class="language-console"[^>]*>)(.*?)(</code></pre>)}m) do
        head, text, tail = $1, $2, $3
        head + mark_commands.call(text) + tail
      end.gsub(%r{<table [^>]*class="tableblock.*?</table>}m, &label_cells)
    end
  end
end
