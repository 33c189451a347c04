// The example of docs/CLIENTS.md, run as it stands there; only the address is put in.
package interop

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestExample(t *testing.T) {
	t.Run("centrifuge-go", func(t *testing.T) {
		page := must(os.ReadFile("../../../../docs/CLIENTS.md"))
		found := regexp.MustCompile("(?ms)^<!-- example: centrifuge-go -->\\s*```go\n(.*?)^```$").FindSubmatch(page)
		if found == nil {
			t.Fatal("docs/CLIENTS.md has no such example")
		}
		code := strings.ReplaceAll(string(found[1]), "127.0.0.1:8000", nodeA)
		file, program := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "example")
		if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := exec.Command("go", "build", "-o", program, file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}

		listener := dialer(centrifuge.NewJsonClient).online(t, nodeB, "ben")
		lobby := listener.enter(t, "lobby")
		example := exec.Command(program)
		example.Env = append(os.Environ(), "TOKEN="+token(claims{"sub": "ann"}))
		printed := must(example.StdoutPipe())
		if err := example.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			example.Process.Signal(syscall.SIGTERM)
			example.Wait()
		})
		lines := make(chan string, 1000)
		go func() {
			for scanner := bufio.NewScanner(printed); scanner.Scan(); {
				lines <- scanner.Text()
			}
		}()
		// Examples of other suites may be in the same room.
		for {
			if string(await(t, "the greeting", lobby.heard).Data) == `{"text":"hello from centrifuge-go"}` {
				break
			}
		}
		if _, err := lobby.Publish(patient(t), []byte(`{"text":"welcome, centrifuge-go"}`)); err != nil {
			t.Fatal(err)
		}
		for {
			if line := await(t, "the answer", lines); strings.Contains(line, "welcome, centrifuge-go") {
				equal(t, "line", line, `heard ben {"text":"welcome, centrifuge-go"}`)
				return
			}
		}
	})
}
